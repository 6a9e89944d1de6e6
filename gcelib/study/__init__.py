"""Running experiments: data, training runs, sweeps and the tables of the paper."""
