"""HTTP: metrics, health, dashboard."""
