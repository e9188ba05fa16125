"""The brokers that trioq is compared with. Each module starts one of them."""
