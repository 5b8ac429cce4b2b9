"""What hovering over a figure of the page shows: targets laid over its points, and the few lines of
JavaScript that make a card of their text, under the mouse, a finger or the keyboard.

Without JavaScript the browser shows the same text as a tooltip: it is the target's SVG title."""

import html

STYLE = """
.pt circle{fill:transparent;stroke:none}
.pt:hover circle,.pt.on circle{stroke:var(--ink);stroke-width:1.1}.pt:focus{outline:none}
svg:has(.pt){touch-action:manipulation}
#card{position:absolute;z-index:9;max-width:min(24rem,calc(100vw - 16px));padding:.5rem .7rem;
 pointer-events:none;background:var(--paper);color:var(--ink);border:1px solid var(--faint);border-radius:5px;
 box-shadow:0 3px 14px #0003;font-size:.8rem;line-height:1.4;overflow-wrap:anywhere}
#card[hidden]{display:none}#card b{display:block;margin-bottom:.15rem}#card dl+b{margin-top:.45rem}
#card dl{display:grid;grid-template-columns:auto 1fr;gap:0 .8rem;margin:0;font-variant-numeric:tabular-nums}
#card dt{color:var(--muted);white-space:nowrap}#card dd{margin:0}
"""

# The text of a point: its name, then "what: value" a line. It is set as text, never as HTML. A mouse need not
# meet a point exactly: the nearest within REACH pixels is meant. Arrow keys go from point to point, Escape
# closes; of each figure one point is a stop of the Tab key. Points that lie over one another, within OVER
# pixels, share a card.
SCRIPT = """
(() => {
  const REACH = 28, OVER = 5, card = document.createElement('div');
  card.id = 'card'; card.hidden = true; card.setAttribute('role', 'status');
  document.body.append(card);
  let on = [];
  const hide = () => { on.forEach(point => point.classList.remove('on')); on = []; card.hidden = true; };
  const box = point => point.firstElementChild.getBoundingClientRect();
  const add = (parent, tag, text) => {
    const child = document.createElement(tag);
    child.textContent = text; parent.append(child);
    return child;
  };
  const middle = point => { const r = box(point); return [r.left + r.width / 2, r.top + r.height / 2]; };
  function show(points) {
    if (on.length === points.length && points.every((point, i) => on[i] === point)) return;
    hide(); on = points; card.replaceChildren();
    for (const point of points) {
      point.classList.add('on');
      const [name, ...facts] = point.dataset.text.split('\\n');
      add(card, 'b', name);
      const list = add(card, 'dl', '');
      for (const fact of facts) {
        const cut = fact.indexOf(': ');
        add(list, 'dt', fact.slice(0, cut)); add(list, 'dd', fact.slice(cut + 2));
      }
    }
    card.hidden = false; card.style.left = card.style.top = '0';
    const at = box(points[0]), room = document.documentElement.clientWidth;
    const wish = at.left + at.width / 2 - card.offsetWidth / 2;
    const left = Math.max(Math.min(wish, room - card.offsetWidth - 8), 8);
    const top = at.top - card.offsetHeight - 6;
    card.style.left = left + scrollX + 'px';
    card.style.top = (top < 4 ? at.bottom + 6 : top) + scrollY + 'px';
  }
  for (const svg of document.querySelectorAll('figure svg')) {
    const points = [...svg.querySelectorAll('.pt')];
    const stops = points.filter(point => point.hasAttribute('tabindex'));
    const near = event => {
      const far = points.map(point => {
        const [x, y] = middle(point);
        return Math.hypot(x - event.clientX, y - event.clientY);
      });
      const least = Math.min(...far);
      if (least > REACH) return hide();
      const best = far.indexOf(least), [x, y] = middle(points[best]);
      const hidden = points.filter((point, i) => {
        const [u, v] = middle(point);
        return i !== best && stops.includes(point) && Math.hypot(u - x, v - y) < OVER;
      });
      show([points[best], ...hidden.slice(0, 2)]);
    };
    points.forEach(point => {
      const title = point.querySelector('title');
      point.dataset.text = title.textContent; title.remove();
      point.setAttribute('aria-label', point.dataset.text.replaceAll('\\n', '; '));
      point.addEventListener('focus', () => show([point]));
      point.addEventListener('blur', hide);
    });
    stops.forEach((point, i) => {
      point.tabIndex = i ? -1 : 0;
      point.addEventListener('keydown', event => {
        const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
        if (!step) return;
        event.preventDefault();
        const next = stops[(i + step + stops.length) % stops.length];
        point.tabIndex = -1; next.tabIndex = 0; next.focus();
      });
    });
    if (!points.length) continue;
    svg.addEventListener('pointermove', event => { if (event.pointerType === 'mouse') near(event); });
    svg.addEventListener('pointerdown', near);
    svg.addEventListener('mousedown', event => event.preventDefault());  // the focus is the keyboard's
    svg.addEventListener('pointerleave', event => { if (event.pointerType === 'mouse') hide(); });
  }
  document.addEventListener('pointerdown', event => { if (!event.target.closest('figure svg')) hide(); });
  document.addEventListener('keydown', event => { if (event.key === 'Escape') hide(); });
  let wide = innerWidth;  // a phone's address bar changes the height alone
  addEventListener('resize', () => { if (wide !== innerWidth) hide(); wide = innerWidth; });
})();
"""


def targets(marks: tuple) -> str:
    """SVG to be laid over a figure: an invisible circle a mark, with its text. marks: of a
    drawing.Drawing."""
    return "".join(
        f'<g class="pt" role="img"{tab}><circle cx="{x:g}" cy="{y:g}" r="7"/>'
        f"<title>{html.escape(text)}</title></g>"
        for x, y, text, stop in marks
        for tab in ([' tabindex="-1"'] if stop else [""])
    )
