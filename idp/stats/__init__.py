"""Is a difference between two arms real? Paired statistics over the same items, task by task."""
