"""A Linux kernel in a process: for tests that need what the host's kernel lacks, such as netem.

`kernel` builds it from Debian's source, once, into a cache; `uml` runs a command in it.
"""
