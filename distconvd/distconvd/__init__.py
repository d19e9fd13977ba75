"""The dispatch daemon: takes jobs, keeps them safe, hands each to the best engine."""
