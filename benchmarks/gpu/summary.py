"""gpu.json as one table for a person."""

SLOWEST = 5  # kernels shown


def table(found: dict) -> str:
    """A line for each measurement: its part, what it is, the result."""
    lines = [("part", "what", "result")]
    for name, record in found["parts"].items():
        kind = next(kind for kind in LINES if name.startswith(kind))
        own = list(LINES[kind](record))
        if "error" in record:
            own.append(("", record["error"]))
        lines += [(name if i == 0 else "", *line) for i, line in enumerate(own)]
    widths = [max(len(line[i]) for line in lines) for i in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in lines)


def _machine(record: dict):
    if chip := record.get("chip"):
        peak = chip["peak_tflops"]
        peak = peak if isinstance(peak, str) else f"{peak:.0f} TFLOP/s"
        limit = (
            f"{chip['memory_limit_gib']:.1f} GiB for programs"
            if chip["memory_limit_gib"]
            else "memory unknown"
        )
        yield "chip", f"{chip['kind']}, published bfloat16 peak {peak}, {limit}"
    if versions := record.get("versions"):
        cudnn = next((f", {name} {version}" for name, version in versions.items() if "cudnn" in name), "")
        yield "versions", f"python {versions.get('python')}, jax {versions.get('jax')}{cudnn}"
    if product := record.get("matmul"):
        yield f"bfloat16 product, {product['n']}³", f"{product['tflops']:.3g} TFLOP/s"
    if copy := record.get("copy"):
        yield f"copy of {copy['mib']} MiB", f"{copy['gb_per_s']:,.0f} GB/s"


def _train(record: dict):
    if "params" in record:
        tables = f", hash tables of {record['hash_rows']:,} rows" if record["hash_rows"] else ""
        total, bare = record["params"]["total"], record["params"]["total_without_hash"]
        yield "model", f"{total / 1e9:.3g}B parameters, {bare / 1e9:.3g}B without hash tables{tables}"
    if "attention_error" in record:
        yield "attention", f"fell back to {record['attention']}: {record['attention_error']}"
    for one in record.get("candidates", ()):
        what = f"remat {one['remat']}, {one['rows']} rows"
        memory = f"{one['program_bytes'] / 2**30:.3g} GiB" if "program_bytes" in one else "memory unknown"
        if one.get("probe"):
            yield what, f"probe of memory: {one.get('error', memory)}"
        elif "step_s" not in one:
            yield what, f"{memory}; {one.get('error', 'cut')}"
        else:
            mfu = "MFU unknown"
            if one["mfu_useful"] is not None:
                mfu = f"MFU {one['mfu_useful']:.1%} useful, {one['mfu_executed']:.1%} executed"
            speed = f"{one['step_s']:.3f} s a step, {one['bytes_per_s']:,.0f} bytes/s"
            finite = "" if one["finite"] else " NOT FINITE"
            yield what, f"{speed}, {one['useful_tflops']:.3g} TFLOP/s useful, {mfu}, {memory}{finite}"
    if best := record.get("best"):
        yield "best", f"remat {best['remat']}, {best['rows']} rows"
    if found := record.get("trace"):
        if "error" in found:
            yield "trace", found["error"]
        for one in found.get("slowest", ())[:SLOWEST]:
            cost = f"{one['share']:.1%}, {one['ms']:.2f} ms, {one['calls']:g} calls a step"
            yield "kernel", f"{cost}: {one['name']}" + (f" of {one['source']}" if one.get("source") else "")


def _kernels(record: dict):
    for one in record.get("cases", ()):
        what = f"{one['operation']}, {one['name']}, {one['dtype']}, {one['path']}"
        if "error" in one:
            yield what, one["error"]
        elif "forward_and_gradient_ms" in one:
            times = (
                f"{one['forward_ms']:.2f} ms forward, {one['forward_and_gradient_ms']:.2f} ms with gradient"
            )
            verdict = "" if one["rounding_only"] else " MORE THAN ROUNDING"
            largest = max(part["largest"] for each in one["differences"].values() for part in each.values())
            worst = one["worst_relative"]
            yield what, f"{times}, off by {largest:.1e} at most ({worst:.1e} relative){verdict}"


def _generate(record: dict):
    for one in record.get("runs", ()):
        what = f"batch {one['batch']}"
        if "error" in one:
            yield what, one["error"]
        elif "bytes_per_s" in one:
            made = f"{one['new_bytes']} bytes in {one['seconds']:.2f} s; first call {one['first_s']:.1f} s"
            yield what, f"{one['bytes_per_s']:,.1f} bytes/s ({made})"


# by a name's begin
LINES = {"machine": _machine, "train": _train, "kernels": _kernels, "generate": _generate}
