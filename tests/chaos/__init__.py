"""The fault harness: a real cloud under load and faults, and a checker that reads what was left behind.

Modules, in the order of a run: `plan` decides everything from one seed; `cloudrun` starts the cloud; `load` asks it for
work and writes `history`; `remote` runs workers of other machines; `startlog` hears from user code; `faults` and
`faultproxy` break things; `growth` watches sizes; `stored` reads the store; `checker` judges; `report` prints.
`simulation` does the same in virtual time, `seeds` many times over; `planted` holds known bugs that all of this has to
find, and `trials` runs a real cloud with each. `maps` does all of it to maps.
"""
