"""The benchmark: threads, trials, noise, throttling, and the gauges it reads."""
