// SPDX-License-Identifier: MIT
#include "problems.hpp"

#include <fftw3.h>

#include <algorithm>
#include <complex>
#include <cstring>
#include <memory>

namespace bench {

maker fftw_long_conv;
maker fftw_image;
maker fftw_three_passes;
const char* fftw_version();

namespace {

struct freed {
    void operator()(void* p) const { fftwf_free(p); }
};
template <class T>
using memory = std::unique_ptr<T[], freed>;
using complex = std::complex<float>;

memory<float> reals(std::int64_t n) { return memory<float>(fftwf_alloc_real(static_cast<std::size_t>(n))); }
memory<complex> complexes(std::int64_t n)
{
    return memory<complex>(reinterpret_cast<complex*>(fftwf_alloc_complex(static_cast<std::size_t>(n))));
}

fftwf_complex* as_fftw(complex* p) { return reinterpret_cast<fftwf_complex*>(p); }
/// As float pairs: std::complex's product looks for NaN.
void multiply(complex* x, const complex* k, std::int64_t count)
{
    auto* a = reinterpret_cast<float*>(x);
    const auto* b = reinterpret_cast<const float*>(k);
    for (std::int64_t i = 0; i < 2 * count; i += 2) {
        const float re = a[i], im = a[i + 1];
        a[i] = re * b[i] - im * b[i + 1], a[i + 1] = re * b[i + 1] + im * b[i];
    }
}

/// Measured plans of one real transform of twice the length and back, and the kernels' spectra.
class convolution {
public:
    convolution(const long_conv_problem& p, void* const* data)
        : p_(p), u_(static_cast<const float*>(data[0])), out_(static_cast<float*>(data[2])), points_(2 * p.length), bins_(p.length + 1),
          stride_((bins_ + 7) / 8 * 8), kernels_(complexes(p.channels * stride_))
    {
        const memory<float> x = reals(points_);
        const memory<complex> X = complexes(bins_);
        fftwf_set_timelimit(10.0); // for each plan; the longest ones would take minutes
        ahead_ = fftwf_plan_dft_r2c_1d(static_cast<int>(points_), x.get(), as_fftw(X.get()), FFTW_MEASURE);
        back_ = fftwf_plan_dft_c2r_1d(static_cast<int>(points_), as_fftw(X.get()), x.get(), FFTW_MEASURE);
        const auto* const k = static_cast<const float*>(data[1]);
        for (std::int64_t d = 0; d < p.channels; ++d) {
            pad(k + d * p.taps, p.taps, x.get());
            fftwf_execute_dft_r2c(ahead_, x.get(), as_fftw(kernels_.get() + d * stride_));
            for (std::int64_t i = 0; i < bins_; ++i) { kernels_[static_cast<std::size_t>(d * stride_ + i)] /= static_cast<float>(points_); }
        }
    }
    convolution(const convolution&) = delete;
    convolution& operator=(const convolution&) = delete;
    ~convolution() { fftwf_destroy_plan(ahead_), fftwf_destroy_plan(back_); }

protected:
    void pad(const float* from, std::int64_t count, float* to) const
    {
        std::copy(from, from + count, to);
        std::fill(to + count, to + points_, 0.0f);
    }

    const long_conv_problem& p_;
    const float* u_;
    float* out_;
    std::int64_t points_, bins_;
    std::int64_t stride_; ///< of spectra: a plan serves no memory that is aligned otherwise than what it was made for
    memory<complex> kernels_;
    fftwf_plan ahead_, back_;
};

class one_by_one : convolution {
public:
    one_by_one(const long_conv_problem& p, void* const* data) : convolution(p, data), x_(reals(points_)), X_(complexes(bins_)) {}

    void run()
    {
        for (std::int64_t d = 0; d < p_.channels; ++d) {
            pad(u_ + d * p_.length, p_.length, x_.get());
            fftwf_execute_dft_r2c(ahead_, x_.get(), as_fftw(X_.get()));
            multiply(X_.get(), kernels_.get() + d * stride_, bins_);
            fftwf_execute_dft_c2r(back_, as_fftw(X_.get()), x_.get());
            std::copy(x_.get(), x_.get() + p_.length, out_ + d * p_.length);
        }
    }

private:
    memory<float> x_;
    memory<complex> X_;
};

class three_passes : convolution {
public:
    three_passes(const long_conv_problem& p, void* const* data)
        : convolution(p, data), x_(reals(p.channels * points_)), X_(complexes(p.channels * stride_))
    {
    }

    void run()
    {
        for (std::int64_t d = 0; d < p_.channels; ++d) { pad(u_ + d * p_.length, p_.length, x_.get() + d * points_); }
        for (std::int64_t d = 0; d < p_.channels; ++d) {
            fftwf_execute_dft_r2c(ahead_, x_.get() + d * points_, as_fftw(X_.get() + d * stride_));
        }
        for (std::int64_t d = 0; d < p_.channels; ++d) { multiply(X_.get() + d * stride_, kernels_.get() + d * stride_, bins_); }
        for (std::int64_t d = 0; d < p_.channels; ++d) {
            fftwf_execute_dft_c2r(back_, as_fftw(X_.get() + d * stride_), x_.get() + d * points_);
        }
        for (std::int64_t d = 0; d < p_.channels; ++d) {
            std::copy(x_.get() + d * points_, x_.get() + d * points_ + p_.length, out_ + d * p_.length);
        }
    }

private:
    memory<float> x_;
    memory<complex> X_;
};

/// Measured plans of real transforms of images of twice the sides.
class images {
public:
    images(const image_problem& p, void* const* data)
        : p_(p), u_(static_cast<const float*>(data[0])), out_(static_cast<float*>(data[2])), width_(2 * p.width),
          points_(4 * p.height * p.width), bins_(2 * p.height * (p.width + 1)), kernels_(complexes(p.channels * bins_)), x_(reals(points_)),
          X_(complexes(bins_))
    {
        const int sides[] = {static_cast<int>(2 * p.height), static_cast<int>(width_)};
        fftwf_set_timelimit(10.0);
        ahead_ = fftwf_plan_dft_r2c_2d(sides[0], sides[1], x_.get(), as_fftw(X_.get()), FFTW_MEASURE);
        back_ = fftwf_plan_dft_c2r_2d(sides[0], sides[1], as_fftw(X_.get()), x_.get(), FFTW_MEASURE);
        const auto* const k = static_cast<const float*>(data[1]);
        for (std::int64_t d = 0; d < p.channels; ++d) {
            pad(k + d * p.rows * p.columns, p.rows, p.columns);
            fftwf_execute_dft_r2c(ahead_, x_.get(), as_fftw(kernels_.get() + d * bins_));
        }
        for (std::int64_t i = 0; i < p.channels * bins_; ++i) { kernels_[static_cast<std::size_t>(i)] /= static_cast<float>(points_); }
    }
    images(const images&) = delete;
    images& operator=(const images&) = delete;
    ~images() { fftwf_destroy_plan(ahead_), fftwf_destroy_plan(back_); }

    void run()
    {
        for (std::int64_t d = 0; d < p_.channels; ++d) {
            pad(u_ + d * p_.height * p_.width, p_.height, p_.width);
            fftwf_execute_dft_r2c(ahead_, x_.get(), as_fftw(X_.get()));
            multiply(X_.get(), kernels_.get() + d * bins_, bins_);
            fftwf_execute_dft_c2r(back_, as_fftw(X_.get()), x_.get());
            for (std::int64_t h = 0; h < p_.height; ++h) {
                const float* const row = x_.get() + h * width_;
                std::copy(row, row + p_.width, out_ + (d * p_.height + h) * p_.width);
            }
        }
    }

private:
    void pad(const float* from, std::int64_t rows, std::int64_t columns)
    {
        std::fill(x_.get(), x_.get() + points_, 0.0f);
        for (std::int64_t h = 0; h < rows; ++h) { std::copy(from + h * columns, from + (h + 1) * columns, x_.get() + h * width_); }
    }

    const image_problem& p_;
    const float* u_;
    float* out_;
    std::int64_t width_, points_, bins_;
    memory<complex> kernels_;
    memory<float> x_;
    memory<complex> X_;
    fftwf_plan ahead_, back_;
};

template <class Call, class Problem>
call make(const void* problem, void* const* data)
{
    auto made = std::make_unique<Call>(*static_cast<const Problem*>(problem), data);
    return {made.release(), [](void* p) { static_cast<Call*>(p)->run(); }, [](void* p) { delete static_cast<Call*>(p); }};
}

} // namespace

const char* fftw_version() { return fftwf_version; }
call fftw_long_conv(const void* problem, void* const* data) { return make<one_by_one, long_conv_problem>(problem, data); }
call fftw_three_passes(const void* problem, void* const* data) { return make<three_passes, long_conv_problem>(problem, data); }
call fftw_image(const void* problem, void* const* data) { return make<images, image_problem>(problem, data); }

} // namespace bench
