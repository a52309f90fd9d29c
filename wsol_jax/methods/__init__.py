"""One file per trained method, each next to the equations of its paper."""
