"""The fault harness for maps: groups of many items under the same faults, and a checker of their outcomes.

`work` says what each map is; `app` is what runs, `client` a process that maps; `load` starts and kills such processes;
`stored` reads the store; `checker` judges; `run` puts them together. The rest is that of `tests.chaos`.
"""
