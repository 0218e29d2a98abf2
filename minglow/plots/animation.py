"""Animations as HTML."""

import html
import re

from matplotlib.animation import Animation

# Labels of the buttons of matplotlib's player; its own come from a font on another host.
SIGNS = {"fa-minus": "-", "fa-fast-backward": "⏮", "fa-step-backward": "⏴",
         "fa-play fa-flip-horizontal": "◀", "fa-pause": "⏸", "fa-play": "▶",
         "fa-step-forward": "⏵", "fa-fast-forward": "⏭", "fa-plus": "+"}


def animation_html(animation: Animation, description: str, fps: int = 4) -> str:
    """An animation player as HTML that loads nothing from the network; `description` is for alt."""
    page = re.sub(r"<link\b[^>]*>", "", animation.to_jshtml(fps=fps, default_mode="once"))
    page = re.sub(r'<i class="fa ([^"]*)"></i>', lambda icon: SIGNS[icon[1]], page)
    return page.replace("<img id=", f'<img alt="{html.escape(description)}" id=')
