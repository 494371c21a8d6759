// Says that a token was wrong: the server comes back here with ?failed=1.
if (new URLSearchParams(location.search).has("failed")) {
  document.getElementById("failed").textContent = "Wrong token. Try again.";
  document.getElementById("token").setAttribute("aria-invalid", "true");
}
document.getElementById("token").focus();
