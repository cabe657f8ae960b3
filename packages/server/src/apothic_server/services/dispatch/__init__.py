"""The dispatcher: jobs, runners and workers in memory, every move a guarded record for the store (D4, D9, D11).

Rules that hold in all modules of this package:

* Memory moves first, the store judges. A job's `LiveJob` shows the state after all records handed to the writer; the
  writer applies records of one job in order, so a refused record means that somebody else wrote first, and the job is
  read again from the store (`Recovery.reload`).
* Nothing leaves before its commit, except the frame of a blocking call (D9): an id, a status or a result is told to a
  client, and `Settled` to a worker, only when the writer says applied.
* Everything here runs on one event loop and never awaits between reading a state and moving it.
"""
