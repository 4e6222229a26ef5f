"""asv's benchmarks of curvebench's own cost; every module below this folder is imported by asv.

Each takes at least 8 samples a side: with 6 against 6 asv's test can flag nothing. Comparisons with a bare loop or
a peer, interleaved in one process, are in ``tests/peers``.
"""
