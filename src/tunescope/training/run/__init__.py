"""A training run: what was asked, what is read, the Trainer that makes it, and the folder it leaves."""
