"""How far is far? The demo's base against itself moved by more and more gaussian weight noise: a ruler for reading other comparisons.

Run with the demo extra installed: python examples/ruler.py
"""

import tunescope as ts
from tunescope.demo import demo_base
from tunescope.report.numbers import percent, three

base = ts.load_model(demo_base(), name="all-MiniLM-L6-v2")
for sigma in (0.02, 0.04, 0.08):
    moved = ts.perturb(base, kind="gaussian", sigma=sigma)
    last = ts.diff(base, moved, sample=200, max_length=64).profile.iloc[-1]
    print(f"σ = {sigma:.2f}: CKA {three(last['cka'])} (chance {three(last['cka_null'])}), neighbours kept {percent(last['nps'])}")
