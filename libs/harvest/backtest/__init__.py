"""A policy tried on a recorded cluster: the same `decide`, step by step, beside what could have been had.

Two replays, coarse (5-minute means) and fine (30-second ticks). Pure: a seed is the only chance.
"""
