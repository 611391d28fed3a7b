"""tunescope diff BASE TUNED --texts FILE"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunescope.cli import options
from tunescope.cli.run import finish, interruptible, progress, say
from tunescope.cli.weights import only_weights
from tunescope.ranks import started_by_torchrun


def diff(
    context: typer.Context,
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            help="Hub id or folder of a model; a capture (tunescope capture); or rows without a model: .npy, .npz, .parquet. With TUNED "
            "left out: an adapter folder, whose own base is read from its config.",
        ),
    ],
    tuned: Annotated[
        str | None, typer.Argument(metavar="TUNED", help="Hub id, folder, PEFT adapter folder, capture or rows.", show_default=False)
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--texts",
            "-t",
            metavar="[NAME[@tuning]=]FILE",
            show_default=False,
            help="txt (one text a line), jsonl, csv, tsv, parquet, or hf:org/name:split. Repeat it as NAME=FILE for further sets "
            "(a pass each), NAME@tuning=FILE for texts the model was tuned on. Default: Python's own documentation.",
        ),
    ] = None,
    tuning_data: Annotated[
        str | None, typer.Option("--tuning-data", metavar="FILE", help="Texts the model was tuned on, only looked for in --texts.")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option("--column", help="Column that holds the texts, for tables, jsonl and hf:; the embeddings, of a BASE.parquet."),
    ] = None,
    chat_template: Annotated[
        bool,
        typer.Option("--chat-template", help="Read texts as user turns (or a column 'messages' as chats) in TUNED's chat template."),
    ] = False,
    sample: options.Sample = None,
    measures: options.Measures = None,
    layers: options.Layers = None,
    pooling: options.Pooling = None,
    also_pooling: Annotated[
        str | None,
        typer.Option(
            "--also-pooling",
            show_default=False,
            help="Does the headline hold under these poolings too? From the same pass; they cost memory and measuring. Example: cls,last.",
        ),
    ] = None,
    prompt: options.Prompt = None,
    max_length: options.MaxLength = None,
    retrieval: options.Retrieval = None,
    query_prompt: options.QueryPrompt = None,
    passage_prompt: options.PassagePrompt = None,
    labels: options.Labels = None,
    test: options.Test = None,
    audit: options.Audit = False,
    lm: options.LanguageTexts = None,
    results: options.Results = None,
    mteb: options.Mteb = None,
    margin: options.Margin = None,
    ruler: Annotated[
        bool, typer.Option("--ruler", help="Also measure known disturbances of BASE: weight noise, rounding, dropout. Ten short passes.")
    ] = False,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Compare the weights alone: no texts, no forward pass; writes weights.json to --out.")
    ] = False,
    out: options.Out = Path("tunescope-out"),
    json: options.Json = False,
    figures: options.Figures = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of BASE on the hub.")] = None,
    tuned_revision: Annotated[str | None, typer.Option("--tuned-revision", help="The same for TUNED.")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    device_map: options.DeviceMap = None,
    one_at_a_time: Annotated[
        bool,
        typer.Option("--one-at-a-time", help="For pairs too large to hold: BASE is read and freed before TUNED is loaded."),
    ] = False,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    tuned_by: Annotated[
        str | None,
        typer.Option("--tuned-by", help="What is known of the tuning, to be recorded: objective=…,corpus=…,rule=…"),
    ] = None,
    pretraining: Annotated[
        str | None,
        typer.Option("--pretraining", help="What BASE was pretrained on, such as mlm+nsp or causal-lm. Default: from its name."),
    ] = None,
    method: Annotated[
        str,
        typer.Option("--method", help="exact keeps all rows; stream is in constant memory, without neighbours; auto: as memory allows."),
    ] = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Where did fine-tuning change the representations, by how much against chance, and did it help or hurt?

    Prints a table; writes report.html and comparison.json to --out. Several processes share the work when torchrun starts them:
    torchrun --nproc-per-node 4 -m tunescope diff …
    """
    with interruptible(out), started_by_torchrun() as ranks:
        from tunescope.comparison.folder import check_folder

        check_folder(out)
        if weights_only:
            only_weights(context, out, as_json=json)
            return
        wanted = options.parse_layers(layers)
        given, tuning = options.parse_texts(texts)
        from tunescope.comparison import diff as compare

        with progress(not json and ranks.rank == 0) as report:
            comparison = compare(
                base,
                tuned,
                given,
                tuning=tuning,
                tuning_data=tuning_data,
                measures=measures,
                layers=wanted,
                sample=sample,
                column=column,
                pooling=pooling,
                also_pooling=also_pooling or (),
                chat_template=chat_template,
                prompt=prompt,
                max_length=max_length,
                batch_size=batch_size,
                device=device,
                dtype=dtype,
                revision=revision,
                tuned_revision=tuned_revision,
                trust_remote_code=trust_remote_code,
                seed=seed,
                ruler=ruler,
                retrieval=retrieval or (),
                query_prompt=query_prompt,
                passage_prompt=passage_prompt,
                labels=labels,
                test=test,
                audit=audit,
                lm=lm or (),
                results=results or (),
                mteb=mteb or (),
                margin=margin,
                tuned_by=tuned_by,
                pretraining=pretraining,
                method=method,
                distributed=ranks.count > 1,
                device_map=device_map,
                one_at_a_time=one_at_a_time,
                announce=None if json or ranks.rank else say,
                progress=report,
            )
        if ranks.rank == 0:
            finish(comparison, out, as_json=json, figures=figures)
