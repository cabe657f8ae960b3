"""How user code reaches the control plane: names that runtime, worker and server agree on. Imports nothing."""

from __future__ import annotations

SOCKET_VARIABLE = "APOTHIC_API_SOCKET"
"""Environment variable of user code: path of the Unix socket that leads to the control plane."""

VALUES_SOCKET = "values.sock"
"""Socket beside it, over which runners get and give large values as files of the worker."""

CALL_HEADER = "X-Apothic-Call"
"""From user code to its worker: which call of a runner, and which item of it, makes this request. Goes no further."""

ATTEMPT_HEADER = "X-Apothic-Attempt"
"""From worker to server: names the attempt whose token the request carries."""
