"""Numbers about a run: accuracy at k, measurements that add up over processes, intervals, times, collapse rules."""
