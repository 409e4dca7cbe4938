"""Train a keyword spotter: `python train.py [key=value …]`; with `-m`, sweep over comma-separated values."""

from kws_experiments.cli.train import main

if __name__ == "__main__":
    main()
