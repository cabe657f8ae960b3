"""How a zygote and the runners forked from it are started on this machine."""
