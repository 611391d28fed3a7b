"""Many runs, one honest table: a plan, its runs, their ledger, hypotheses written before them, and what the rows say."""
