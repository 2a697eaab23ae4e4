"""How far predictions are from solutions."""
