"""The fault harness: a real cloud under load and faults, and a checker that reads what was left behind.

Modules, in the order of a run: `plan` decides everything from one seed; `cloudrun` starts the cloud; `load` asks it for
work and writes `history`; `startlog` hears from user code; `faults` and `faultproxy` break things; `stored` reads the
store; `checker` judges; `report` prints. `simulation` does the same in virtual time, `planted` holds known bugs that
all of this has to find.
"""
