"""Tables beside the published ones: the runs they need, their numbers, galleries and text."""
