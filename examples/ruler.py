"""How far is far? The demo's base against itself moved by more and more gaussian weight noise: a ruler for reading other comparisons.

Run with the demo extra installed: python examples/ruler.py
"""

import tunescope as ts
from tunescope.demo import demo_base

base = ts.load_model(demo_base(), name="all-MiniLM-L6-v2")
for sigma in (0.02, 0.04, 0.08):
    moved = ts.perturb(base, kind="gaussian", sigma=sigma)
    last = ts.diff(base, moved, sample=200, max_length=64).profile.iloc[-1]
    print(f"σ = {sigma:.2f}: CKA {last['cka']:.3f} (chance {last['cka_null']:.3f}), neighbours kept {last['nps']:.0%}")
