# SPDX-License-Identifier: GPL-2.0
# Draws the demonstration: expects $samples, $limits and $changes from the caller.

set terminal pngcairo size 1200,760 font "DejaVu Sans,11"
set multiplot
set lmargin at screen 0.085
set rmargin at screen 0.965
set xrange [0:last]
set grid xtics ytics lc rgb "#dddddd"
set border 3 lc rgb "#555555"
set tics nomirror
set key bottom center horizontal opaque
set style fill solid 0.85 noborder

# Above: what was served against what was allowed.
set tmargin at screen 0.91
set bmargin at screen 0.40
set title "One guest's disk on rblkback: IOPS while dom0 changes its limit with xenstore-write" font ",14"
set ylabel "IOPS served (log scale)"
set logscale y
set yrange [low:high]
set format x ""
plot $changes using 1:(low):(0):(high-low) with vectors nohead lc rgb "#999999" dt 2 notitle, \
     $changes using ($1+0.12):(label_at):2 with labels left font ",10" tc rgb "#333333" notitle, \
     $limits using 1:2:($3-$1):(0) with vectors nohead lw 5 lc rgb "#d95f02" title "limit (tokens-refill)", \
     $samples using 1:2 with linespoints pt 7 ps 0.7 lw 2 lc rgb "#1f5fa8" title "served"

# Below: how long requests waited for tokens.
unset title
unset logscale y
set tmargin at screen 0.36
set bmargin at screen 0.09
set yrange [0:105]
set format x "%g"
set ylabel "time with a request\nwaiting for a token (%)"
set xlabel "seconds on the host's clock"
plot $samples using 1:3 with filledcurves y=0 fs solid 0.35 lc rgb "#d95f02" notitle
unset multiplot
