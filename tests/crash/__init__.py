"""Death at every door: the whole loop in one process on the simulated clock, killed somewhere, and started again.

`points` names the moments, `story` is what happens, `audit` looks at the cloud, the bus and the rows afterwards,
`zygote` plays it in processes of its own.
"""
