// Searches and filters the edited facts. Without it the page shows all of them.
const tools = document.getElementById("tools");
if (tools) {
  const cards = [...document.querySelectorAll(".card")].map(card => [card, card.textContent.toLocaleLowerCase()]);
  const search = document.getElementById("search"), shown = document.getElementById("shown");
  const show = () => {
    const kind = tools.querySelector("input[name=kind]:checked").value;
    const words = search.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const [card, text] of cards) {
      card.hidden = (kind && card.dataset.kind !== kind) || !words.every(word => text.includes(word));
      count += !card.hidden;
    }
    shown.textContent = `${count} of ${cards.length} shown`;
  };
  tools.addEventListener("input", show);
  tools.hidden = false;
  show();
}
