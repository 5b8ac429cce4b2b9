"""One run or job, from its config and what it reads to done.json."""
