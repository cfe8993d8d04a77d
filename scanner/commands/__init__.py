"""What `laescan` can be told to do: one file for each command or pair of them, its arguments and its words."""
