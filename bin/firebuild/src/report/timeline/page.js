(function () {
  var tip = document.getElementById("tip");
  function show(bar, x, y) {
    tip.textContent = bar.getAttribute("data-tip");
    tip.hidden = false;
    var box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
    tip.style.top = (y + box.height + 26 > innerHeight ? Math.max(8, y - box.height - 14) : y + 18) + "px";
  }
  function hide() { tip.hidden = true; }
  document.querySelectorAll(".bar").forEach(function (bar) {
    bar.addEventListener("mousemove", function (event) { show(bar, event.clientX, event.clientY); });
    bar.addEventListener("mouseleave", hide);
    bar.addEventListener("focus", function () {
      var box = bar.getBoundingClientRect();
      show(bar, box.left, box.bottom);
    });
    bar.addEventListener("blur", hide);
  });
})();
