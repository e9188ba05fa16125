"""Three brokers on virtual time, over links, a metastore and disks that fail as a seed says.

What decides is the real code: `Partition` with both its sides and its IsrState, the controller's
ReviewState with the elections, the epoch cache. What is simulated is what these stand on: logs
(model_log.py: lists of batches, of which a crash may take the unsynced end), the metastore
(metastore.py), the network and time (world.py), and the drivers that carry decisions from one to
the other (process.py, fetching.py, isr_changes.py, controlling.py). ledger.py has the invariants,
faults.py what goes wrong, mutations.py rules to break, so that it can be seen that each is needed.

`python -m tests.sim.cluster --seeds 0:10000` runs longer; a failure prints its seed, and
`--seeds N --trace` shows that history.
"""
