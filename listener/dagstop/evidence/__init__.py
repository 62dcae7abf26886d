"""Stage 3, evidence: which processes and containers are the stopped run's, and what says so."""
