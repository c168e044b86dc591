"""The plot of captured shares by policy and budget; needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

mpl.use("agg")

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

INK = "#7d8590"  # legible on a white page and on a dark one
COLORS = ("#2da44e", "#bf8700", "#d1577a", "#5fa8d3", "#8b949e", "#a371f7")


def draw(shares: Mapping[str, Mapping[int, Sequence[float]]], path: Path) -> None:
    """Draw one line per policy, best first; 800 pixels wide, on no background.

    Args:
        shares: captured share of every trace, by policy and by budget in GB.
        path: .png or .svg.
    """
    budgets = list(next(iter(shares.values())))
    means = {name: [float(np.mean(by_budget[each])) for each in budgets] for name, by_budget in shares.items()}
    ranked = sorted(means, key=lambda name: -np.mean(means[name]))
    plt.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans", "svg.fonttype": "path"})
    figure, axes = plt.subplots(figsize=(8, 3.6), dpi=100, layout="constrained")
    for rank, name in enumerate(ranked):
        ours = name.startswith("ours")
        axes.plot(
            range(len(budgets)),
            means[name],
            color=COLORS[rank % len(COLORS)],
            linewidth=2.6 if ours else 1.4,
            marker="os^Dv*"[rank % 6],
            markersize=7 if ours else 5,
            label=f"{name}  {np.mean(means[name]):.2f}",
            zorder=3 if ours else 2,
        )
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.annotate("optimum", (0.4, 1), textcoords="offset points", xytext=(0, 4), color=INK, fontsize=9, ha="center")
    axes.set_xticks(range(len(budgets)), [f"{budget} GB" for budget in budgets])
    axes.set_xlabel("budget; 15 models of 1 to 12 GB", color=INK)
    axes.set_title("Share of the avoidable transfer that is avoided", color=INK, fontsize=11, loc="left", pad=10)
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.8)
    axes.spines[:].set_visible(False)
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelcolor=INK)
    legend.set_title("mean over budgets", prop={"size": 9})
    legend.get_title().set_color(INK)
    figure.savefig(path, transparent=True)
    plt.close(figure)
