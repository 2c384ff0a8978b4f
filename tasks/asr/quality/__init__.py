"""How good the recogniser is: error rates, slices, intervals, confusions. Pure."""
