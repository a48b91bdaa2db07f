"""Which neighbors a neighbor table keeps; apart from it, since reading a table takes no torch."""

RANKS = tuple(2**i for i in range(9))  # ranks whose distances are kept; the scales of GRIDE are ranks 2 … 256
N_NEIGHBORS = 32  # how many nearest neighbors are kept by index
