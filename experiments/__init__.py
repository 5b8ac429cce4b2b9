"""Which runs: one short file per paper figure or table. Declarations only; `registry.py` finds and checks
them."""
