"""Pure rules: machine states, what a decision means for machines, the next step, how a budget is shared."""
