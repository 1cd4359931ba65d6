"""The beats of monitor: hold a fair share of the resources, sample each on its own interval, publish."""
