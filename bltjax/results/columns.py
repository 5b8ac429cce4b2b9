"""The columns of every table of runs: what each is called, its unit, how it is printed, what it means.

One list serves report.csv, the tables of the page and the exported table; docs/run_directory.md has a line
for each, which a test holds complete."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    """key: of a row. unit: "" for words and for numbers that have none. form: how a number is printed.
    heading: over the printed column. meaning: for the data dictionary."""

    key: str
    unit: str
    form: str
    heading: str
    meaning: str

    @property
    def title(self) -> str:
        """The heading of an exported table: the key and, in brackets, the unit."""
        return f"{self.key} [{self.unit}]" if self.unit else self.key


COLUMNS = tuple(
    Column(*fields)
    for fields in (
        ("name", "", "{}", "run", "the run's name, which is its directory's"),
        ("family", "", "{}", "family", "kind of model, of bltjax/config/families.py"),
        (
            "series",
            "",
            "{}",
            "series",
            "the curve that the run belongs to: its family and what sets it apart",
        ),
        ("chosen", "", "{}", "chosen", "whether it is of the configuration that is best on validation text"),
        (
            "budget_flops",
            "FLOP",
            "flops",
            "planned FLOPs (budget)",
            "training FLOPs that it was planned with",
        ),
        ("bpb", "bit/byte", "{:.4f}", "test bits/byte", "bits per byte of the test text's raw bytes"),
        ("seeds", "", "{}", "seeds", "how many seeds the row is the mean of"),
        (
            "bpb_seed_sd",
            "bit/byte",
            "{:.4f}",
            "standard deviation over seeds",
            "of one seed's test bits per byte about the mean of the seeds",
        ),
        ("bpb_low", "bit/byte", "{:.4f}", "95% from", "lower end of the 95% interval of bpb"),
        ("bpb_high", "bit/byte", "{:.4f}", "95% to", "upper end of the 95% interval of bpb"),
        (
            "upper_bound",
            "",
            "{}",
            "upper bound",
            "whether bpb is of one tokenization out of many, and so bounds the model's from above",
        ),
        (
            "validation_bpb",
            "bit/byte",
            "{:.4f}",
            "validation bits/byte",
            "bits per byte of the validation text",
        ),
        (
            "realized_flops",
            "FLOP",
            "flops",
            "realized FLOPs (useful)",
            "exact useful training FLOPs: unpadded bytes and patches, the entropy model left out",
        ),
        ("deviation_percent", "%", "{:+.2f}%", "off budget", "realized FLOPs over the budget, minus 1"),
        (
            "executed_flops",
            "FLOP",
            "flops",
            "executed FLOPs",
            "what the program multiplied, padding and masked blocks included",
        ),
        ("executed_over_useful", "", "{:.2f}", "executed over useful", "executed_flops over realized_flops"),
        (
            "entropy_forward_flops",
            "FLOP",
            "flops",
            "entropy model's forward FLOPs",
            "of the entropy model over the training bytes; 0 for a family that uses none",
        ),
        (
            "flops_with_entropy_model",
            "FLOP",
            "flops",
            "realized + entropy model",
            "realized_flops and entropy_forward_flops together",
        ),
        (
            "patch_target",
            "byte",
            "{:.3g}",
            "patch size, target",
            "mean patch size asked for; of bpe, of a token",
        ),
        (
            "patch_size",
            "byte",
            "{:.3f}",
            "patch size, training rows",
            "mean bytes of a patch (bpe: of a token) in the rows that the run trains on",
        ),
        ("patch_test", "byte", "{:.3f}", "patch size, test text", "the same on the test text"),
        ("steps", "", "{:,.0f}", "steps", "optimizer steps"),
        ("train_bytes", "byte", "{:,.0f}", "training bytes", "raw bytes trained on, repeated ones included"),
        ("epochs", "", "{:.2f}", "epochs", "how often the training text was read"),
        ("bytes_per_batch", "byte", "{:,.0f}", "bytes per batch", "mean raw bytes of a batch"),
        ("packing_bytes", "", "{:.1%}", "packing, bytes or tokens", "share of byte or token slots in use"),
        ("packing_patches", "", "{:.1%}", "packing, patches", "share of patch slots in use"),
        ("params_total", "parameter", "{:,.0f}", "parameters", "all parameters"),
        (
            "params_latent",
            "parameter",
            "{:,.0f}",
            "latent parameters, 12·l·h²",
            "of the latent transformer (bpe: the transformer), 12·layers·width² as in the paper's Table 10",
        ),
        (
            "params_without_hash",
            "parameter",
            "{:,.0f}",
            "parameters without hash tables",
            "params_total less params_hash",
        ),
        ("params_hash", "parameter", "{:,.0f}", "hash tables", "of the n-gram hash tables"),
        (
            "params_lexicon",
            "parameter",
            "{:,.0f}",
            "lexicon (hash tables, or embeddings and head of BPE)",
            "hash tables of a BLT; embeddings and output head of bpe: many parameters, almost no FLOPs",
        ),
        (
            "params_without_lexicon",
            "parameter",
            "{:,.0f}",
            "parameters without lexicon",
            "params_total less params_lexicon",
        ),
        (
            "flops_per_byte_exact",
            "FLOP/byte",
            "{:,.0f}",
            "forward FLOPs/byte, exact",
            "forward FLOPs of a byte, everything that is multiplied (docs/flops.md)",
        ),
        (
            "flops_per_byte_paper",
            "FLOP/byte",
            "{:,.0f}",
            "forward FLOPs/byte, paper",
            "the same by the convention of the paper's appendix",
        ),
        (
            "local_share",
            "",
            "{:.0%}",
            "FLOPs outside the latent transformer",
            "share of the exact forward FLOPs in encoder, cross-attention, decoder and head",
        ),
        ("lr", "", "{:g}", "learning rate", "the highest learning rate of the schedule"),
        ("vocab", "", "{:,.0f}", "vocabulary", "entries of the vocabulary"),
        ("hash_rows", "", "{:,.0f}", "hash rows", "rows of each n-gram hash table"),
        ("size", "", "{}", "size", "the experiment's name for the shape"),
        ("seed", "", "{}", "seed", "draws the weights and nothing else"),
        ("threshold", "nat", "{:.4f}", "threshold, nats", "entropy above which a patch starts"),
        ("delta", "nat", "{:.4f}", "delta, nats", "rise of entropy above which a patch starts"),
        (
            "eos_nats",
            "nat",
            "{:.1f}",
            "EOS nats (apart)",
            "nats of all ends of test documents; no part of bpb",
        ),
        ("test_bytes", "byte", "{:,.0f}", "test bytes", "raw bytes scored"),
        ("test_documents", "", "{}", "test documents", "documents scored"),
        ("test_text", "", "{}", "test text (digest)", "of the scored documents: equal for the same text"),
        (
            "mean_context_bytes",
            "byte",
            "{:,.1f}",
            "mean left context, bytes",
            "mean bytes of context before a scored byte",
        ),
        (
            "positions_trained",
            "",
            "{:,.0f}",
            "positions trained",
            "positions of the longest training segment",
        ),
        ("positions_scored", "", "{:,.0f}", "positions scored", "positions of the longest test window"),
        (
            "overlap",
            "",
            "{:.2%}",
            "test shingles in training text",
            "share of the test text's 50-byte shingles that stand in training text",
        ),
        (
            "overlap_without_boilerplate",
            "",
            "{:.2%}",
            "the same without boilerplate",
            "the same, shingles that many documents share left out",
        ),
        ("wall_s", "s", "{:,.0f}", "wall, s", "wall time of the last attempt, training and scoring"),
        ("run_dir", "", "{}", "directory", "the run directory"),
    )
)

# Of the exported table alone: how a run was made, and what became of it.
EXPORTED = tuple(
    Column(*fields)
    for fields in (
        ("state", "", "{}", "state", "done, unfinished or failed; only a run that is done has scores"),
        ("reason", "", "{}", "reason", "why it is not done"),
        ("experiment", "", "{}", "experiment", "the experiment that it belongs to"),
        ("paper_figure", "", "{}", "paper's figure", "the figure or table of the paper that it redraws"),
        ("paper_row", "", "{}", "paper's row", "the row or curve there that it stands for"),
        ("kind", "", "{}", "kind", "token, blt or byte"),
        ("preset", "", "{}", "preset", "which reading of the paper: paper or released"),
        ("scheme", "", "{}", "patching scheme", "how patches start (bltjax/patching)"),
        ("context", "byte", "{}", "context", "bytes of context of a training row"),
        ("rows", "", "{}", "rows", "rows of a batch"),
        (
            "latent_width",
            "",
            "{}",
            "latent width",
            "width of the latent transformer (token, byte: of the model)",
        ),
        ("latent_layers", "", "{}", "latent layers", "layers of the same"),
        ("local_width", "", "{}", "local width", "width of a BLT's encoder and decoder"),
        ("encoder_layers", "", "{}", "encoder layers", "layers of a BLT's encoder"),
        ("decoder_layers", "", "{}", "decoder layers", "layers of a BLT's decoder"),
        (
            "warmup",
            "",
            "{}",
            "warm-up steps",
            "as configured; −1: the smaller of 2,000 and a tenth of the steps",
        ),
        ("schedule", "", "{}", "schedule", "of the learning rate"),
        ("beta1", "", "{}", "beta1", "of AdamW"),
        ("beta2", "", "{}", "beta2", "of AdamW"),
        ("weight_decay", "", "{}", "weight decay", "of AdamW"),
        ("dtype", "", "{}", "dtype", "of the model's arithmetic"),
        ("epochs_before", "", "{}", "epochs before", "of epochs: those of the model that it started from"),
        ("entropy_model", "", "{}", "entropy model", "fingerprint of the entropy model that it reads"),
        (
            "entropy_model_flops",
            "FLOP",
            "flops",
            "its training FLOPs",
            "training FLOPs of that entropy model",
        ),
        ("validation_text", "", "{}", "validation text", "digest of the scored validation documents"),
        ("data_fingerprint", "", "{}", "data", "of the prepared data: equal for the same text and splits"),
        ("platform", "", "{}", "platform", "cpu, gpu or tpu"),
        ("device", "", "{}", "device", "the device's own name"),
        ("devices", "", "{}", "devices", "how many"),
        ("cores", "", "{}", "cores", "CPU cores that the process was bound to"),
        ("created", "", "{}", "created", "when the run began, UTC"),
        ("bltjax", "", "{}", "bltjax", "version of bltjax"),
        ("jax", "", "{}", "jax", "version of jax"),
    )
)
UNITS = {column.key: column.unit for column in (*COLUMNS, *EXPORTED)}
TITLES = {column.key: column.title for column in (*COLUMNS, *EXPORTED)}
