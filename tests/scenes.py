"""Players that hide their file, and what is drawn over a page: what the extension is tried on and looked at with."""

from pathlib import Path

HOSTILE = Path(__file__).parent / "extension" / "hostile.html"
JUDGED = {"manipulated", "authentic", "inconclusive"}
DRAWN = (  # whether anything is painted on the overlay's canvas
    "(() => { const canvas = host.shadow.querySelector('.overlay canvas');"
    " return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean) })()"
)
PLAYER = """<video width=384 muted></video><script>
fetch(['/clip', 'mp4'].join('.')).then((answer) => answer.arrayBuffer()).then((bytes) => {
  document.querySelector('video').src = URL.createObjectURL(new Blob([bytes], { type: 'video/mp4' }));
});
</script>"""
STREAM = """<video id=file width=40 muted loop autoplay></video>
<video id=shown width=384 muted autoplay></video>
<script>
const file = document.querySelector('#file');
file.onplaying = () => { document.querySelector('#shown').srcObject = file.captureStream() };
fetch(['/clip', 'mp4'].join('.')).then((answer) => answer.blob())
  .then((clip) => { file.src = URL.createObjectURL(clip) });
</script>"""


def edges(inside, what):
    """Left, top, right and bottom of an element."""
    return inside.run(f"(() => {{ const r = {what}.getBoundingClientRect(); return [r.x, r.y, r.right, r.bottom] }})()")
