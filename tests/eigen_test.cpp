// SPDX-License-Identifier: MIT
#include "support/catch.hpp"
#include "support/random.hpp"

#include <seqmix/interop/eigen.hpp>
#include <seqmix/seqmix.hpp>

#include <Eigen/Dense>

// The adapter, and the kernels against Eigen: arithmetic that nobody here wrote. Built once, for the build's own flags:
// Eigen is slow to compile.

using index_type = seqmix::index;
using seqmix::view;
using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

namespace {

template <class Matrix>
Matrix random_matrix(random_source& random, index_type rows, index_type columns)
{
    Matrix m(rows, columns);
    for (index_type i = 0; i < m.size(); ++i) { m.data()[i] = random.normal(); }
    return m;
}

} // namespace

TEST_CASE("views of Eigen matrices, maps and blocks, in both storage orders")
{
    random_source random(1);
    auto column_major = random_matrix<Eigen::MatrixXf>(random, 5, 7);
    const auto constant = random_matrix<row_major>(random, 4, 6);
    const auto same = [](const auto& v, const auto& m) {
        bool all = v.extent(0) == m.rows() && v.extent(1) == m.cols();
        for (index_type r = 0; all && r < m.rows(); ++r) {
            for (index_type c = 0; c < m.cols(); ++c) { all = all && &v(r, c) == &m.coeffRef(r, c); }
        }
        return all;
    };
    CHECK(same(seqmix::interop::view_of(column_major), column_major));
    CHECK(same(seqmix::interop::view_of(constant), constant));
    auto block = column_major.block(1, 2, 3, 4);
    CHECK(same(seqmix::interop::view_of(block), block));

    const view<float, 2> strided(column_major.data(), {3, 2}, {2, 5});
    auto map = seqmix::interop::map_of(strided);
    CHECK(same(strided, map));
    const auto read_only = seqmix::interop::map_of(view<const float, 2>(constant.data(), {4, 6}));
    CHECK(read_only == constant);
}

TEST_CASE("gemm agrees with Eigen")
{
    random_source random(3);
    const auto a = random_matrix<Eigen::MatrixXf>(random, 70, 50), b = random_matrix<Eigen::MatrixXf>(random, 50, 90);
    row_major c(70, 90);
    seqmix::workspace scratch;
    seqmix::tile::gemm(seqmix::interop::view_of(a), seqmix::interop::view_of(b), seqmix::interop::view_of(c), scratch);
    const Eigen::MatrixXd want = a.cast<double>() * b.cast<double>();
    const Eigen::MatrixXd size = a.cast<double>().cwiseAbs() * b.cast<double>().cwiseAbs();
    CHECK(((c.cast<double>() - want).array().abs() <= 52 * 0x1p-24 * size.array()).all());
}

TEST_CASE("attention agrees with Eigen")
{
    random_source random(5);
    constexpr index_type queries = 37, keys = 291, size = 24;
    const auto q = random_matrix<row_major>(random, queries, size), k = random_matrix<row_major>(random, keys, size),
               v = random_matrix<row_major>(random, keys, size);
    row_major out(queries, size);
    const auto of = [](auto& m) { return view(m.data(), {index_type{1}, index_type{1}, index_type{m.rows()}, index_type{m.cols()}}); };
    seqmix::attention::forward(of(q), of(k), of(v), of(out));

    const Eigen::MatrixXd scores = q.cast<double>() * k.cast<double>().transpose() / std::sqrt(double{size});
    const Eigen::MatrixXd weights = (scores.colwise() - scores.rowwise().maxCoeff()).array().exp();
    const Eigen::VectorXd sums = weights.rowwise().sum();
    const Eigen::MatrixXd want = sums.cwiseInverse().asDiagonal() * weights * v.cast<double>();
    const double largest_score = (q.cast<double>().cwiseAbs() * k.cast<double>().cwiseAbs().transpose()).maxCoeff() / std::sqrt(double{size});
    const double bound = 0x1p-24 * (2.0 * size * largest_score + 2.0 * keys + 16.0) * v.cast<double>().cwiseAbs().maxCoeff();
    CHECK((out.cast<double>() - want).cwiseAbs().maxCoeff() <= bound);
}
