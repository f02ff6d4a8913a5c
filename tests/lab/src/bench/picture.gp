# SPDX-License-Identifier: GPL-2.0
# Draws the benchmark: expects from the caller the number of jobs and $ratios, a
# line for each: its name, dom0's instructions without a limit and with one, and IOPS, all as ratios
# to xen-blkback's.

set terminal pngcairo size 1200,760 font "DejaVu Sans,11"
set multiplot
set lmargin at screen 0.085
set rmargin at screen 0.965
set border 3 lc rgb "#555555"
set tics nomirror
set grid ytics lc rgb "#dddddd"
set style fill solid 0.85 noborder
set xrange [-0.6:jobs-0.4]
set key at screen 0.965,0.945 right horizontal

# Above: what an administrator pays.
set tmargin at screen 0.90
set bmargin at screen 0.52
set label 1 "rblkback beside xen-blkback (1.0), in an emulated host that counts instructions" \
    at screen 0.5,0.975 center font ",14"
set ylabel "dom0's instructions\na request, ratio"
set yrange [0:1.3<*<2.5]
set format x ""
plot $ratios using ($0-0.18):2:(0.34) with boxes lc rgb "#1f5fa8" title "no limit", \
     $ratios using ($0+0.18):3:(0.34) with boxes lc rgb "#9ecae1" title "limit out of reach", \
     $ratios using ($0-0.18):2:(sprintf("%.2f", $2)) with labels offset 0,0.6 font ",9" notitle, \
     1 with lines lw 2 lc rgb "#333333" title "xen-blkback", \
     0.75 with lines lw 2 dt 2 lc rgb "#d95f02" title "0.75"

# Below: what a guest sees.
unset label 1
unset key
set tmargin at screen 0.47
set bmargin at screen 0.20
set ylabel "IOPS, ratio"
set yrange [0:1.3<*<2.5]
set format x "%g"
set xtics rotate by -35 scale 0
plot $ratios using 0:4:(0.5):xtic(1) with boxes lc rgb "#1f5fa8" notitle, \
     $ratios using 0:4:(sprintf("%.2f", $4)) with labels offset 0,0.6 font ",9" notitle, \
     1 with lines lw 2 lc rgb "#333333" notitle
unset multiplot
