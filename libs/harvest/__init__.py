"""The decision engine: policy, state, sample and facts in, a decision out. No I/O, no clock, no chance."""
