"""The decision engine: pure functions from policy, state, sample and facts to a decision. No I/O, no clock, no chance."""
