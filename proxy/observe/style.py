"""The look of the status page, as one style sheet for wide and narrow, light and dark.

It is a constant, because the page names it by its hash: nothing may be put into it at run time.
"""

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --back: #f4f6f8; --card: #ffffff; --text: #17202a; --soft: #56636f; --line: #dce2e8;
  --good: #11683a; --good-back: #dcf3e5; --warn: #7a4b00; --warn-back: #fdeecb;
  --bad: #a01722; --bad-back: #fbe0e2; --accent: #1f6feb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #10151b; --card: #19212a; --text: #e7edf3; --soft: #9dabb8; --line: #2c3843;
    --good: #79dba2; --good-back: #12351f; --warn: #f5c365; --warn-back: #3d2c08;
    --bad: #ff9ea5; --bad-back: #451a1f; --accent: #6aa8ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.25rem; max-width: 110rem; background: var(--back); color: var(--text);
  font: 0.9375rem/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0.25rem 1rem; margin-bottom: 1rem; }
h1 { font-size: 1.5rem; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.0625rem; margin: 1.75rem 0 0.5rem; }
p { margin: 0; }
ul.why { margin: 0 0 1rem; padding: 0.6rem 1rem 0.6rem 2rem; border-radius: 0.5rem;
  background: var(--bad-back); color: var(--bad); overflow-wrap: anywhere; }
.soft, small { color: var(--soft); }
small { font-size: 0.8125rem; }
.badge { display: inline-block; padding: 0.05rem 0.55rem; border-radius: 1rem; font-size: 0.8125rem;
  font-weight: 600; white-space: nowrap; }
.good { background: var(--good-back); color: var(--good); }
.warn { background: var(--warn-back); color: var(--warn); }
.bad { background: var(--bad-back); color: var(--bad); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.55rem 0.75rem; text-align: left; vertical-align: top; }
thead th, thead .n { color: var(--soft); font-size: 0.8125rem; font-weight: 600; white-space: normal;
  vertical-align: bottom; }
tbody tr { border-top: 1px solid var(--line); }
tbody th { font-weight: 600; overflow-wrap: anywhere; min-width: 9.5rem; max-width: 16rem; }
th small { display: block; font-weight: 400; }
.n { text-align: right; white-space: nowrap; }
.words { overflow-wrap: anywhere; min-width: 9rem; max-width: 22rem; }
.words small, td.n small { display: block; }
.note { margin: 0.4rem 0 0; color: var(--soft); font-size: 0.8125rem; }
.note a { color: var(--accent); }
meter { display: block; width: 100%; min-width: 4rem; height: 0.6rem; }
footer { margin-top: 1.75rem; color: var(--soft); font-size: 0.8125rem; }
footer a { color: var(--accent); }
@media (max-width: 72rem) {
  body { padding: 0.75rem; }
  .card { background: none; border: 0; overflow: visible; }
  table, tbody, tr, th, td { display: block; width: auto; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
    gap: 0.75rem; align-items: start; }
  tbody tr { background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
    padding: 0.6rem 0.85rem; }
  tbody th { max-width: none; padding: 0 0 0.35rem; font-size: 1.0625rem; }
  td, .n, .words { display: grid; grid-template-columns: 9rem 1fr; gap: 0 0.75rem;
    padding: 0.22rem 0; max-width: none; text-align: left; white-space: normal; }
  td::before { content: attr(data-label); color: var(--soft); }
  .badge { justify-self: start; }
  td > * { grid-column: 2; }
}
"""
