"""What every transformer here is made of: RMSNorm, rotary positions, SwiGLU, the pre-norm block, and stacks
of layers.

Parameters are float32 and plain arrays; a module casts them to its compute dtype where it uses them. Norms,
softmax and logits are float32. Dimensions as in bltjax/config/."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from bltjax.models.kernels.attention import self_attention
from bltjax.parallel import sharding


def normal(std: float):
    """Initializer of a weight: its standard deviation everywhere, which `models.init` multiplies by truncated
    normals."""
    return nn.initializers.constant(std)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x, scale, eps: float):
    """x / rms(x) * scale over the last axis, in float32, returned in x's dtype. Keeps nothing but x for its
    gradient."""
    return _rms_norm_forward(x, scale, eps)[0]


def _wide(scale, ndim: int):
    return scale.reshape((1,) * (ndim - 1) + (-1,))


def _rms_norm_forward(x, scale, eps):
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + eps)
    return (wide * inverse * _wide(scale, x.ndim)).astype(x.dtype), (x, scale, inverse)


def _rms_norm_backward(eps, kept, g):
    x, scale, inverse = kept
    unit, g = x.astype(jnp.float32) * inverse, g.astype(jnp.float32)
    scaled = g * _wide(scale, x.ndim)
    to_x = inverse * (scaled - unit * jnp.mean(scaled * unit, -1, keepdims=True))
    return to_x.astype(x.dtype), jnp.sum(g * unit, tuple(range(x.ndim - 1)))


rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def matmul(x, kernel, dtype: str, out: str, layout=None):
    """x [..., D] times a float32 kernel [D, *F] in `dtype`, returned as `out`; the kernel's gradient is
    float32.

    layout: (cut, whole), on a mesh (sharding.layout). The kernel is then gathered here, in `dtype`, once
    forward and once more backward, so that no gathered weight is ever kept; its gradient goes back cut, in
    float32, by one reduce-scatter.

    Its gradient is JAX's own, but for the order of the product that gives the kernel's: XLA's CPU backend is
    up to five times slower where that product's long side does not come out last."""
    return _product(x.astype(dtype), _whole(kernel, dtype, layout), out)


def _whole(kernel, dtype, layout):
    kernel = kernel.astype(dtype)
    return kernel if layout is None else jax.lax.with_sharding_constraint(kernel, layout[1])


def _product(x, kernel, out):
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=out)


def _matmul_forward(x, kernel, dtype, out, layout):
    # Not `matmul` itself: remat's policies look for products, and see none inside a custom derivative.
    return _product(x.astype(dtype), _whole(kernel, dtype, layout), out), (x, kernel)


def _matmul_backward(dtype, out, layout, kept, g):
    x, kernel = kept
    g = g.astype(dtype)
    if layout is None:
        return _flat_backward(x, kernel.reshape(kernel.shape[0], -1).astype(dtype), g, kernel.shape)
    # F of g, and what the kernel's gradient is summed over
    outer, rows = tuple(range(x.ndim - 1, g.ndim)), tuple(range(x.ndim - 1))
    to_x = jax.lax.dot_general(
        g, _whole(kernel, dtype, layout), ((outer, tuple(range(1, kernel.ndim))), ((), ()))
    )
    to_kernel = jax.lax.dot_general(
        x.astype(dtype), g, ((rows, rows), ((), ())), preferred_element_type=jnp.float32
    )
    return to_x.astype(x.dtype), jax.lax.with_sharding_constraint(to_kernel, layout[0])


def _flat_backward(x, kernel_DxF, g, shape):
    D, F = kernel_DxF.shape
    x_NxD, g_NxF = x.reshape(-1, D).astype(kernel_DxF.dtype), g.reshape(-1, F)
    to_x = (g_NxF @ kernel_DxF.T).reshape(x.shape).astype(x.dtype)
    to_kernel = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    if F >= D:
        return to_x, to_kernel("nd,nf->df", x_NxD, g_NxF).reshape(shape)
    # The barrier keeps XLA from folding the transposition into the product.
    return to_x, jax.lax.optimization_barrier(to_kernel("nd,nf->fd", x_NxD, g_NxF)).T.reshape(shape)


matmul.defvjp(_matmul_forward, _matmul_backward)


class RMSNorm(nn.Module):
    """RMS norm with a learned scale over the last axis."""

    eps: float

    @nn.compact
    def __call__(self, x):
        return rms_norm(x, self.param("scale", nn.initializers.ones, (x.shape[-1],)), self.eps)


class Linear(nn.Module):
    """Bias-free map of the last axis to `shape` (more than one axis: several maps of one input in one
    product)."""

    shape: tuple
    dtype: str
    std: float | None = None  # default: input width ** -0.5
    out: str | None = None  # dtype of the result, where it is not the compute dtype

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        kernel = self.param("kernel", normal(self.std or width**-0.5), (width, *self.shape))
        return matmul(
            x,
            kernel,
            self.dtype,
            self.out or self.dtype,
            sharding.layout((*self.path, "kernel"), kernel.shape),
        )


def rope_table(length: int, head_dim: int, theta: float, scaling=()):
    """Rotary tables, float32 [length, head_dim] twice: cos and signed sin of position * theta ** (-2i /
    head_dim), each twice a pair.

    scaling: () or Llama 3.1's (factor, low, high, original length): frequencies that turn less than `low`
    times in the original length are divided by factor, those that turn more than `high` times are kept, and
    between them there is a straight line. Computed on the host, once per program: a cosine takes a CPU longer
    than all else that is done to an element of a query. Frequencies are float32, as in the released code, but
    angles are not: rounded to float32, those of positions 4,000 and 4,001 differ by something else than those
    of 0 and 1 (by 2e-4), and a document read in windows would get other entropies than in one pass."""
    frequency = np.float32(1) / np.float32(theta) ** (
        np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    )
    if scaling:
        factor, low, high, original = scaling
        kept = np.clip((original * frequency / (2 * np.pi) - low) / (high - low), 0, 1).astype(np.float32)
        frequency = frequency * (kept + (1 - kept) / np.float32(factor))
    angle = np.arange(length)[:, None] * frequency[None].astype(np.float64)
    sin, cos = np.sin(angle).astype(np.float32), np.cos(angle).astype(np.float32)
    return np.repeat(cos, 2, axis=1), np.stack([-sin, sin], axis=-1).reshape(length, head_dim)


def rotate(x, cos, sin):
    """Rotary positions: the pairs are (2i, 2i + 1), as in the released weights; float32 inside. cos, signed
    sin: shaped to broadcast."""
    wide = x.astype(jnp.float32)
    other = wide.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape)
    return (wide * cos + other * sin).astype(x.dtype)


@jax.custom_vjp
def heads(qkv_BxTx3xHxK, rope):
    """q and k with rotary positions, and v, each [B,H,T,K].

    Its gradient is written in one pass instead of three padded sums. The barriers part transpositions from
    what surrounds them: XLA's CPU backend would fuse both into one loop that walks memory the wrong way (ten
    times slower)."""
    q, k, v = qkv_BxTx3xHxK.transpose(2, 0, 3, 1, 4)
    cos, sin = (part[None, None] for part in rope)
    return _apart((rotate(q, cos, sin), rotate(k, cos, sin), v))


def _apart(arrays):
    return jax.lax.optimization_barrier(arrays) if sharding.platform() == "cpu" else arrays


def _heads_backward(rope, g):
    q, k, v = _apart(tuple(part.swapaxes(1, 2) for part in g))
    cos, sin = (part[None, :, None] for part in rope)
    return jnp.stack([rotate(q, cos, -sin), rotate(k, cos, -sin), v], axis=2), None


heads.defvjp(lambda qkv, rope: (heads(qkv, rope), rope), _heads_backward)


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions, within documents and, if `window`, within the last
    `window` positions."""

    heads: int
    window: int
    dtype: str

    @nn.compact
    def __call__(self, x_BxTxD, doc_ids_BxT, rope):
        B, T, D = x_BxTxD.shape
        # heads that do not divide the width are rounded down, as in released code
        inner = self.heads * (D // self.heads)
        qkv = Linear((3, inner), self.dtype, name="qkv")(x_BxTxD)
        q, k, v = heads(qkv.reshape(B, T, 3, self.heads, D // self.heads), rope)
        own_heads = P(sharding.BATCH, "model")
        attend = sharding.local(
            functools.partial(self_attention, window=self.window),
            (own_heads,) * 3 + (P(sharding.BATCH),),
            own_heads,
        )
        y_BxHxTxK = attend(q, k, v, doc_ids_BxT)
        return Linear((D,), self.dtype, std=D**-0.5, name="out")(
            y_BxHxTxK.swapaxes(1, 2).reshape(B, T, inner)
        )


@jax.custom_vjp
def gated(gate_up):
    """[..., 2, F] -> silu(gate) * up. Keeps nothing but its input for its gradient."""
    return jax.nn.silu(gate_up[..., 0, :]) * gate_up[..., 1, :]


def _gated_backward(gate_up, g):
    gate, up = gate_up[..., 0, :], gate_up[..., 1, :]
    opened = jax.nn.sigmoid(gate)
    return (jnp.stack([g * up * opened * (1 + gate * (1 - opened)), g * gate * opened], axis=-2),)


gated.defvjp(lambda gate_up: (gated(gate_up), gate_up), _gated_backward)


class SwiGLU(nn.Module):
    """W2(silu(W1 x) * W3 x)."""

    ffn: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        gate_up = Linear((2, self.ffn), self.dtype, name="gate_up")(x)
        return Linear((x.shape[-1],), self.dtype, name="down")(gated(gate_up))


class Block(nn.Module):
    """Pre-norm Llama block: x + attention(norm x), then x + ffn(norm x). Shaped for `stack`: returns (x, what
    each layer emits).

    emit: "" for nothing, or the block's "input" or "output".
    """

    heads: int
    ffn: int
    window: int
    eps: float
    dtype: str
    emit: str = ""

    @nn.compact
    def __call__(self, x_BxTxD, doc_ids_BxT, rope):
        attention = SelfAttention(self.heads, self.window, self.dtype, name="attention")
        x = x_BxTxD + sharding.rows(
            attention(RMSNorm(self.eps, name="attention_norm")(x_BxTxD), doc_ids_BxT, rope)
        )
        x = x + sharding.rows(SwiGLU(self.ffn, self.dtype, name="ffn")(RMSNorm(self.eps, name="ffn_norm")(x)))
        return x, {"": None, "input": x_BxTxD, "output": x}[self.emit]


REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


# a shorter stack is never a loop: XLA compiles it as fast (equal layers share kernels), and it runs up to a
# fifth faster
UNROLLED = 12


def stack(module, length: int, config, in_axes=(nn.broadcast, nn.broadcast)):
    """`length` layers of `module` over a carry, parameters stacked on a leading axis. in_axes: of the
    arguments behind the carry, nn.broadcast where every layer gets the same.

    config.scan False unrolls any stack and keeps the layout, so that a compiled program shows every layer's
    operations."""
    # a mesh's programs are large: compile a layer once
    loop = config.scan and length > (UNROLLED if sharding.current() is None else 1)
    if REMAT[config.remat]:
        module = nn.remat(module, policy=REMAT[config.remat], prevent_cse=not loop)
    return nn.scan(
        module,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=length,
        unroll=1 if loop else length,
        check_constancy_invariants=False,  # which would trace every layer twice
    )
