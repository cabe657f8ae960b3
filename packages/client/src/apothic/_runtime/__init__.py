"""What runs inside a user's environment: the zygote of one deployment and the runners it forks.

Imports the standard library, `apothic.wire`, `apothic._serialize` and `apothic._loading`, nothing else, on Python 3.10
and later. Speaks the frames of `apothic.wire.runner` over inherited sockets; no HTTP, no configuration, no environment
variables.

`zygote` loads the app and forks; `start` turns a forked child into a runner; `runner` resolves the function and picks
one of three ways to serve calls: `serial` (one at a time on the main thread), `threads` and `tasks` (several at once).
`invoke` is one call, `errors` turns exceptions into data, `output` tells the output of simultaneous calls apart.
"""
