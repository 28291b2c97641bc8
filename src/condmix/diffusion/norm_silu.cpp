// GroupNorm, the conditioning, SiLU and dropout of a feature map in one operation, forward and backward, on CPUs:
//
//     u = x + before[b, c]                                   (absent: 0)
//     z = ((u - mean[b, g]) * rstd[b, g] * weight[c] + bias[c]) * (1 + scale[b, c]) + shift[b, c]
//     y = z * sigmoid(z) * kept / (1 - p)
//
// Maps are channels_last, x[b][place][c], in fp32 or bf16; statistics and arithmetic are fp32. Each picture is one
// task: its map is read twice, the second time from the cache. Which values are kept follows from (seed, b, position),
// so the backward pass computes it again and nothing is stored.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using at::BFloat16;
using at::Tensor;
using Floats = std::vector<float>;
using Optional = std::optional<Tensor>;

inline float load(float value) { return value; }
inline float load(BFloat16 value) {
  const uint32_t bits = uint32_t(value.x) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

inline void store(float& to, float value) { to = value; }
inline void store(BFloat16& to, float value) {  // to the nearest, ties to even; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.x = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : nearest);
}

// 1 / (1 + exp(-z)), free of branches and calls so that compilers vectorise it; exp as in Cephes' expf.
inline float sigmoid(float z) {
  float v = z > 87.f ? -87.f : -z;
  v = v > 87.f ? 87.f : v;
  const float magic = 12582912.f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
  const float n = (v * 1.44269504088896341f + magic) - magic;
  const float r = v - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  const int32_t exponent = (int32_t(n) + 127) << 23;
  float power;
  std::memcpy(&power, &exponent, 4);
  return 1.f / (1.f + p * power);
}

inline uint32_t hash(uint32_t v) {  // the finaliser of MurmurHash3
  v = (v ^ (v >> 16)) * 0x85ebca6bu;
  v = (v ^ (v >> 13)) * 0xc2b2ae35u;
  return v ^ (v >> 16);
}

// Dropout of one picture: value i of its map is kept where hash(i ^ key) >= least.
struct Dropout {
  uint32_t least, key;
  float factor;

  Dropout(double p, int64_t seed, int64_t picture)
      : least(uint32_t(p * 4294967296.0)),
        key(hash(uint32_t(seed) ^ hash(uint32_t(seed >> 32) ^ hash(uint32_t(picture))))),
        factor(float(1.0 / (1.0 - p))) {}
};

// The loops over a row of n values. Rows are several places long, so that narrow maps fill a vector too.

template <typename T>
void add_moments(int64_t n, const T* __restrict__ x, const float* __restrict__ about, float* __restrict__ sum,
                 float* __restrict__ squares) {
  for (int64_t i = 0; i < n; i++) {
    const float d = load(x[i]) - about[i];
    sum[i] += d;
    squares[i] += d * d;
  }
}

template <typename T>
void activate(int64_t n, const T* __restrict__ x, const float* __restrict__ slope, const float* __restrict__ offset,
              T* __restrict__ y) {
  for (int64_t i = 0; i < n; i++) {
    const float z = load(x[i]) * slope[i] + offset[i];
    store(y[i], z * sigmoid(z));
  }
}

template <typename T>
void activate_and_drop(int64_t n, const T* __restrict__ x, const float* __restrict__ slope,
                       const float* __restrict__ offset, T* __restrict__ y, uint32_t first, Dropout drop) {
  for (int64_t i = 0; i < n; i++) {
    const float z = load(x[i]) * slope[i] + offset[i];
    const float kept = hash((first + uint32_t(i)) ^ drop.key) >= drop.least ? drop.factor : 0.f;
    store(y[i], z * sigmoid(z) * kept);
  }
}

template <typename T>
void gradient_of_z(int64_t n, const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ slope,
                   const float* __restrict__ offset, float* __restrict__ dz) {
  for (int64_t i = 0; i < n; i++) {
    const float z = load(x[i]) * slope[i] + offset[i], s = sigmoid(z);
    dz[i] = load(dy[i]) * s * (1.f + z * (1.f - s));
  }
}

inline void drop_gradient(int64_t n, float* __restrict__ dz, uint32_t first, Dropout drop) {
  for (int64_t i = 0; i < n; i++)
    dz[i] *= hash((first + uint32_t(i)) ^ drop.key) >= drop.least ? drop.factor : 0.f;
}

template <typename T>
void add_gradients(int64_t n, const float* __restrict__ dz, const T* __restrict__ x, const float* __restrict__ about,
                   float* __restrict__ sum, float* __restrict__ sum_u) {
  for (int64_t i = 0; i < n; i++) {
    sum[i] += dz[i];
    sum_u[i] += dz[i] * (load(x[i]) - about[i]);
  }
}

template <typename T>
void gradient_of_x(int64_t n, const float* __restrict__ dz, const T* __restrict__ x, const float* __restrict__ slope,
                   const float* __restrict__ linear, const float* __restrict__ constant, T* __restrict__ dx) {
  for (int64_t i = 0; i < n; i++) store(dx[i], slope[i] * dz[i] + linear[i] * load(x[i]) + constant[i]);
}

// Sizes of the maps, and what is given per channel, or per picture and channel.
struct Operands {
  int64_t pictures, channels, places, groups, row;
  const float *weight, *bias, *before, *scale, *shift;

  Operands(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias, const Optional& before,
           const Optional& scale, const Optional& shift)
      : pictures(x.size(0)), channels(x.size(1)), places(x.size(2) * x.size(3)), groups(groups), row(channels),
        weight(weight.const_data_ptr<float>()), bias(bias.const_data_ptr<float>()), before(pointer(before)),
        scale(pointer(scale)), shift(pointer(shift)) {
    while (row < 512 && places * channels % (2 * row) == 0) row *= 2;
  }

  static const float* pointer(const Optional& t) { return t.has_value() ? t->const_data_ptr<float>() : nullptr; }
  int64_t size() const { return places * channels; }
  int64_t group(int64_t c) const { return c / (channels / groups); }
  double in_group() const { return double(channels / groups) * places; }
  float added(int64_t b, int64_t c) const { return before ? before[b * channels + c] : 0.f; }

  // z = slope * x + offset
  void affine(int64_t b, const float* mean, const float* rstd, Floats& slope, Floats& offset) const {
    for (int64_t c = 0; c < channels; c++) {
      const float k = scale ? 1.f + scale[b * channels + c] : 1.f, h = shift ? shift[b * channels + c] : 0.f;
      slope[c] = rstd[group(c)] * weight[c] * k;
      offset[c] = (added(b, c) - mean[group(c)]) * slope[c] + bias[c] * k + h;
    }
    repeat(slope);
    repeat(offset);
  }

  void repeat(Floats& of_channels) const {
    for (int64_t i = channels; i < row; i++) of_channels[i] = of_channels[i - channels];
  }

  void fold(Floats& of_row) const {
    for (int64_t i = channels; i < row; i++) of_row[i % channels] += of_row[i];
  }
};

template <typename T>
void forward(const Operands& o, const T* x, T* y, float* means, float* rstds, double eps, double p, int64_t seed) {
  at::parallel_for(0, o.pictures, 1, [&](int64_t begin, int64_t end) {
    Floats about(o.row), sum(o.row), squares(o.row), slope(o.row), offset(o.row);
    for (int64_t b = begin; b < end; b++) {
      const T* in = x + b * o.size();
      T* out = y + b * o.size();
      float *mean = means + b * o.groups, *rstd = rstds + b * o.groups;

      // Sums about the first place's values, since of large values the squares' mean less the mean's square cancels.
      for (int64_t c = 0; c < o.channels; c++) about[c] = load(in[c]);
      o.repeat(about);
      std::fill(sum.begin(), sum.end(), 0.f);
      std::fill(squares.begin(), squares.end(), 0.f);
      for (int64_t i = 0; i < o.size(); i += o.row) add_moments(o.row, in + i, about.data(), sum.data(), squares.data());
      o.fold(sum);
      o.fold(squares);
      const int64_t width = o.channels / o.groups;
      for (int64_t g = 0; g < o.groups; g++) {
        double total = 0, deviation = 0;
        for (int64_t c = g * width; c < (g + 1) * width; c++)
          total += o.places * (double(about[c]) + o.added(b, c)) + sum[c];
        const double centre = total / o.in_group();
        for (int64_t c = g * width; c < (g + 1) * width; c++) {
          const double d = double(about[c]) + o.added(b, c) - centre;
          deviation += squares[c] + 2 * d * sum[c] + d * d * o.places;
        }
        mean[g] = float(centre);
        rstd[g] = float(1 / std::sqrt(deviation / o.in_group() + eps));
      }

      o.affine(b, mean, rstd, slope, offset);
      const Dropout drop(p, seed, b);
      for (int64_t i = 0; i < o.size(); i += o.row)
        if (drop.least)
          activate_and_drop(o.row, in + i, slope.data(), offset.data(), out + i, uint32_t(i), drop);
        else
          activate(o.row, in + i, slope.data(), offset.data(), out + i);
    }
  });
}

// `dz` and `dz_u`: per picture and channel the sums over places of dz and of dz * (u - mean).
template <typename T>
void backward(const Operands& o, const T* dy, const T* x, T* dx, const float* means, const float* rstds, float* dz,
              float* dz_u, double p, int64_t seed) {
  at::parallel_for(0, o.pictures, 1, [&](int64_t begin, int64_t end) {
    Floats of_map(o.size()), about(o.row), sum(o.row), sum_u(o.row), slope(o.row), offset(o.row);
    Floats linear(o.row), constant(o.row);
    for (int64_t b = begin; b < end; b++) {
      const T *in = x + b * o.size(), *out = dy + b * o.size();
      const float *mean = means + b * o.groups, *rstd = rstds + b * o.groups;
      o.affine(b, mean, rstd, slope, offset);
      for (int64_t c = 0; c < o.channels; c++) about[c] = mean[o.group(c)] - o.added(b, c);  // u - mean = x - about
      o.repeat(about);

      const Dropout drop(p, seed, b);
      std::fill(sum.begin(), sum.end(), 0.f);
      std::fill(sum_u.begin(), sum_u.end(), 0.f);
      for (int64_t i = 0; i < o.size(); i += o.row) {
        float* of_row = of_map.data() + i;
        gradient_of_z(o.row, out + i, in + i, slope.data(), offset.data(), of_row);
        if (drop.least) drop_gradient(o.row, of_row, uint32_t(i), drop);
        add_gradients(o.row, of_row, in + i, about.data(), sum.data(), sum_u.data());
      }
      o.fold(sum);
      o.fold(sum_u);
      std::copy_n(sum.begin(), o.channels, dz + b * o.channels);
      std::copy_n(sum_u.begin(), o.channels, dz_u + b * o.channels);

      // dx = slope * dz, less its part along 1 and along u - mean, which the normalisation takes away
      const int64_t width = o.channels / o.groups;
      for (int64_t g = 0; g < o.groups; g++) {
        double along_one = 0, along_u = 0;
        for (int64_t c = g * width; c < (g + 1) * width; c++) {
          along_one += double(slope[c]) * sum[c];
          along_u += double(slope[c]) * sum_u[c];
        }
        along_one /= o.in_group();
        along_u *= double(rstd[g]) * rstd[g] / o.in_group();
        for (int64_t c = g * width; c < (g + 1) * width; c++) {
          linear[c] = float(-along_u);
          constant[c] = float(about[c] * along_u - along_one);
        }
      }
      o.repeat(linear);
      o.repeat(constant);
      for (int64_t i = 0; i < o.size(); i += o.row)
        gradient_of_x(o.row, of_map.data() + i, in + i, slope.data(), linear.data(), constant.data(),
                      dx + b * o.size() + i);
    }
  });
}

std::tuple<Tensor, Tensor, Tensor> norm_silu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                             const Optional& before, const Optional& scale, const Optional& shift,
                                             int64_t groups, double eps, double p, int64_t seed) {
  const Operands o(x, groups, weight, bias, before, scale, shift);
  Tensor y = at::empty_like(x), mean = at::empty({o.pictures, groups}, weight.options()), rstd = at::empty_like(mean);
  const auto run = [&](const auto* in, auto* out) {
    forward(o, in, out, mean.mutable_data_ptr<float>(), rstd.mutable_data_ptr<float>(), eps, p, seed);
  };
  if (x.scalar_type() == at::kBFloat16)
    run(x.const_data_ptr<BFloat16>(), y.mutable_data_ptr<BFloat16>());
  else
    run(x.const_data_ptr<float>(), y.mutable_data_ptr<float>());
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor> norm_silu_backward(const Tensor& dy, const Tensor& x, const Tensor& mean,
                                                      const Tensor& rstd, const Tensor& weight, const Tensor& bias,
                                                      const Optional& before, const Optional& scale,
                                                      const Optional& shift, double p, int64_t seed) {
  const Operands o(x, mean.size(1), weight, bias, before, scale, shift);
  Tensor dx = at::empty_like(x), dz = at::empty({o.pictures, o.channels}, weight.options()), dz_u = at::empty_like(dz);
  const auto run = [&](const auto* out, const auto* in, auto* to) {
    backward(o, out, in, to, mean.const_data_ptr<float>(), rstd.const_data_ptr<float>(), dz.mutable_data_ptr<float>(),
             dz_u.mutable_data_ptr<float>(), p, seed);
  };
  if (x.scalar_type() == at::kBFloat16)
    run(dy.const_data_ptr<BFloat16>(), x.const_data_ptr<BFloat16>(), dx.mutable_data_ptr<BFloat16>());
  else
    run(dy.const_data_ptr<float>(), x.const_data_ptr<float>(), dx.mutable_data_ptr<float>());
  return {dx, dz, dz_u};
}

}  // namespace

TORCH_LIBRARY(condmix, library) {
  library.def(
      "norm_silu(Tensor x, Tensor weight, Tensor bias, Tensor? before, Tensor? scale, Tensor? shift, int groups, "
      "float eps, float p, int seed) -> (Tensor, Tensor, Tensor)");
  library.def(
      "norm_silu_backward(Tensor dy, Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor bias, "
      "Tensor? before, Tensor? scale, Tensor? shift, float p, int seed) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(condmix, CPU, library) {
  library.impl("norm_silu", &norm_silu);
  library.impl("norm_silu_backward", &norm_silu_backward);
}
